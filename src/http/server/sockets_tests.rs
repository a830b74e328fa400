//! Addresses and options of listening sockets, as the kernel shows them.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Reserved for documentation (RFC 5737), so no machine has it.
const MISSING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);

fn address(socket: &TcpListener) -> SocketAddr {
    socket.local_addr().unwrap()
}

#[tokio::test]
async fn under_a_memory_limit_the_kernel_s_buffers_do_not_grow() {
    let sockets = bind_all(&[LOOPBACK]).unwrap();
    limit_receive_buffers(&sockets);
    let address = address(&sockets[0]);
    let client = std::thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        // Longer than a busy machine keeps the reader from running.
        let timeout = Some(Duration::from_secs(1));
        client.set_write_timeout(timeout).unwrap();
        set_socket_send_buffer_size(&client, 16 * 1024).unwrap();
        let mut sent = 0;
        while let Ok(count) = client.write(&[b'x'; 64 * 1024]) {
            sent += count;
        }
        sent
    });
    let (mut stream, _) = sockets[0].accept().await.unwrap();
    // Read fast at first, which has the kernel offer more; then not at all.
    let mut block = vec![0; 256 * 1024];
    let mut read = 0;
    while read < 16 << 20 {
        let count = stream.read(&mut block).await.unwrap();
        assert_ne!(count, 0, "the client gave up after {read} bytes");
        read += count;
    }
    let held = client.join().unwrap() - read;
    assert!(held < 1 << 20, "{held} bytes are held");
}

#[tokio::test]
async fn addresses_share_a_picked_port() {
    let second = SocketAddr::from(([127, 0, 0, 2], 0));
    let sockets = bind_all(&[LOOPBACK, second]).unwrap();
    assert_eq!(sockets.len(), 2);
    assert_eq!(address(&sockets[0]).port(), address(&sockets[1]).port());
}

#[tokio::test]
async fn a_missing_address_is_left_out_unless_it_is_the_only_one() {
    assert_eq!(bind_all(&[MISSING, LOOPBACK]).unwrap().len(), 1);
    let refused = bind_all(&[MISSING]);
    assert!(matches!(refused, Err(StartError::Listen { .. })));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = bind_all(&[LOOPBACK]).unwrap();
    let address = address(&first[0]);
    let error = bind_all(&[address]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {address} (another program has this port: --port (PORT) or --admin \
             (FAAS_ADMIN) sets another)"
        )
    );
}

#[tokio::test]
async fn accepted_sockets_send_without_delay() {
    let sockets = bind_all(&[LOOPBACK]).unwrap();
    let _client = TcpStream::connect(address(&sockets[0])).await.unwrap();
    let (stream, _) = sockets[0].accept().await.unwrap();
    assert!(stream.nodelay().unwrap());
}
