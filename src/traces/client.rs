//! HTTP/1.1 for the exporter: one request a connection, without TLS.
//!
//! The clients that OpenTelemetry offers bring HTTP/2 or a second HTTP library; hyper is here
//! already.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of a response that are read.
const LARGEST_RESPONSE: usize = 64 * 1024;

/// Sends requests, each on a connection of its own.
#[derive(Debug)]
pub(super) struct Client {
    /// Longest time for a request, from the connection to the end of the response.
    pub(super) timeout: Duration,
}

impl HttpClient for Client {
    // As the macro `async_trait` writes the signature.
    fn send_bytes<'own, 'future>(
        &'own self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'own: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            // Cancel-safe: a response that is late is dropped with its connection.
            timeout(self.timeout, answer_to(request)).await?
        })
    }
}

async fn answer_to(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (host, port) = receiver(request.uri())?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let authority = request.uri().authority().map(|authority| {
        let host_and_port = authority.as_str().rsplit('@').next();
        HeaderValue::from_str(host_and_port.unwrap_or_default())
    });
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(authority) = authority {
        headers.insert(HOST, authority?);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let mut answered = pin!(async {
        let response = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_RESPONSE).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    });
    // Cancel-safe: bytes that the connection has read stay in a channel to `answered`.
    tokio::select! {
        answered = &mut answered => answered,
        ended = connection => {
            ended?;
            answered.await
        }
    }
}

/// Host and port of an address.
pub(super) fn receiver(uri: &Uri) -> Result<(String, u16), HttpError> {
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("TLS is the matter of a proxy, expected http://".into()),
        Some(_) | None => return Err("expected http://HOST:PORT".into()),
    }
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or("expected http://HOST:PORT")?;
    // IPv6 addresses have brackets in a URL, and elsewhere none.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn addresses_have_a_host_and_a_port_and_no_tls() {
        for (url, found) in [
            ("http://collector:4318/v1", Some(("collector", 4318))),
            ("http://collector/v1", Some(("collector", 80))),
            ("http://[::1]:4318/v1", Some(("::1", 4318))),
            ("http://me:secret@collector:1/", Some(("collector", 1))),
            ("https://collector:4318/", None),
            ("grpc://collector:4317", None),
            ("collector:4318", None),
            ("/v1/traces", None),
        ] {
            let receiver = receiver(&url.parse().unwrap()).ok();
            let expected = found.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(receiver, expected, "{url}");
        }
    }

    /// Answers one request with these bytes; gives back the request.
    async fn exchange(answer: &'static [u8]) -> (Result<Response<Bytes>, HttpError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"spans") {
                let mut piece = [0; 512];
                let length = stream.read(&mut piece).await.unwrap();
                asked.extend_from_slice(&piece[..length]);
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let client = Client {
            timeout: Duration::from_secs(5),
        };
        let request = Request::post(format!("http://me:secret@{address}/v1/traces?a=1"));
        let request = request.body(Bytes::from_static(b"spans")).unwrap();
        tokio::join!(client.send_bytes(request), server)
    }

    #[tokio::test]
    async fn a_request_is_answered_by_its_response() {
        let (answer, asked) =
            exchange(b"HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno").await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(answer.body(), "no");
        assert!(
            asked.starts_with("POST /v1/traces?a=1 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("\r\nhost: 127.0.0.1:"), "{asked}");
        assert!(!asked.contains("secret"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_that_ends_with_its_connection_is_read_to_its_end() {
        let (answer, _) = exchange(b"HTTP/1.0 200 OK\r\n\r\nyes").await;
        assert_eq!(answer.unwrap().body(), "yes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client {
            timeout: Duration::from_secs(5),
        };
        let request = Request::post(format!("http://{address}/v1/traces"));
        let request = request.body(Bytes::from_static(b"spans")).unwrap();
        let sent = timeout(Duration::from_secs(6), client.send_bytes(request));
        assert!(sent.await.expect("given up after 5 s").is_err());
    }

    #[tokio::test]
    async fn bytes_that_are_no_response_are_an_error() {
        for answer in [
            &b"SSH-2.0-x\r\n"[..],
            b"",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
        ] {
            assert!(exchange(answer).await.0.is_err());
        }
    }
}
