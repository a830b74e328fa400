//! Accepting and closing connections.
use crate::config::HttpConfig;
use crate::error::StartError;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::future::Future;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

pub struct Listener(Vec<tokio::net::TcpListener>);
impl Listener {
    pub fn bind(config: &HttpConfig) -> Result<Listener, StartError> {
        let mut v = vec![];
        for a in &config.listen {
            let f = |source| StartError::Listen { address: a.to_string(), source };
            let s = if a.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }.map_err(f)?;
            s.set_reuseaddr(true).map_err(f)?;
            s.bind(*a).map_err(f)?;
            v.push(s.listen(4096).map_err(f)?);
        }
        Ok(Listener(v))
    }
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|l| l.local_addr().ok()).collect()
    }
    pub async fn serve<A, F>(self, _config: &HttpConfig, answer: A, close: CancellationToken, _abort: CancellationToken)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let tracker = tokio_util::task::TaskTracker::new();
        loop {
            let s = tokio::select! { s = self.0[0].accept() => s, () = close.cancelled() => break };
            let Ok((s, _)) = s else { continue };
            let _ = s.set_nodelay(true);
            let answer = answer.clone();
            let close = close.clone();
            tracker.spawn(async move {
                let c = hyper::server::conn::http1::Builder::new().pipeline_flush(true).serve_connection(
                    hyper_util::rt::TokioIo::new(s),
                    hyper::service::service_fn(move |r| { let f = answer(r); async move { Ok::<_, std::convert::Infallible>(f.await) } }),
                );
                tokio::pin!(c);
                tokio::select! { _ = &mut c => return, () = close.cancelled() => {} }
                c.as_mut().graceful_shutdown();
                let _ = c.await;
            });
        }
        tracker.close();
        tracker.wait().await;
    }
}
