use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

#[test]
fn a_node_that_starts_is_alive_and_not_ready() {
    let bind = free_address();
    let metrics = MetricsConfig { bind, limits: MetricsLimits::default() };
    let thread = MetricsThread::start(metrics).unwrap();
    let live = get(bind, "/health/live");
    assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("the node starts\n"), "{live}");
    let ready = get(bind, "/health/ready");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("the node starts\n"), "{ready}");
    let text = get(bind, "/metrics");
    assert!(text.contains("\nchronik_build_info{version="), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!text.contains("chronik_partitions"), "{text}");
    assert!(get(bind, "/").starts_with("HTTP/1.1 404 "));
    thread.stop();
    assert!(TcpStream::connect(bind).is_err(), "nobody listens any more");
}
