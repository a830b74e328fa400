//! The bound of what can be reached: hyper with the worker's settings on one runtime thread, which
//! answers every body with that body. No routes, no limits, no time limits, no process.
//!
//! With `--decode` it is a server in Rust that has the function in it, to be compared with the same
//! function in a process behind the worker.

use super::function;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// As the worker's.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 4096;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Answers with what the function makes of the payload, instead of the body
    #[arg(long)]
    decode: bool,
    /// Threads, each with a listener and connections of its own
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|_| scope.spawn(|| listen(options)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread that serves never panics"))
    })
}

/// One thread's listener and its connections.
fn listen(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(options.threads > 1)?;
        socket.set_nodelay(true)?;
        socket.bind(options.listen)?;
        let listener = socket.listen(BACKLOG)?;
        let mut connections = JoinSet::new();
        loop {
            // Cancel-safe: a connection is accepted in the poll that returns it, and one that has
            // ended stays in the set until it is taken out.
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    connections.spawn(serve(stream, options.decode));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

async fn serve(stream: TcpStream, decode: bool) {
    let service = service_fn(move |request| answer(request, decode));
    let connection = http1::Builder::new()
        .keep_alive(true)
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A client that leaves is no failure here.
    drop(connection.await);
}

async fn answer(request: Request<Incoming>, decode: bool) -> hyper::Result<Response<Full<Bytes>>> {
    let mut body = request.into_body().collect().await?.to_bytes();
    let mut status = StatusCode::OK;
    if decode {
        match function::answer(&body) {
            Some(answer) => body = answer.into(),
            None => status = StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}
