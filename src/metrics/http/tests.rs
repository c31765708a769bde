use std::net::SocketAddr;
use std::thread::JoinHandle;

use super::*;

/// Answers with the path, and with a large body if that is asked for.
struct Echo;

const LARGE: usize = 32 << 20;

impl Answers for Echo {
    fn answer(&mut self, request: Request<'_>) -> Answer {
        match request.path {
            "/large" => Answer {
                status: "200 OK",
                content_type: "text/plain",
                body: vec![b'x'; LARGE].into(),
            },
            path => Answer::line("200 OK", path),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _now: Instant) {}
}

/// A listener with its thread; both end with the value.
struct Running {
    address: SocketAddr,
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopped, stop) = io::pipe().unwrap();
        let thread = std::thread::spawn(move || serve(&listener, &stopped, &mut Echo));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn says(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read(&mut stream)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "its thread panicked");
    }
}

fn read(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    String::from_utf8(said).unwrap()
}

#[test]
fn a_request_is_answered_and_the_connection_closed() {
    let running = Running::start();
    let said = running.says(b"GET /metrics?now=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.contains("Content-Length: 9\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\n/metrics\n"), "{said}");
    let head = running.says(b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 9\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_request_may_come_in_pieces() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(read(&mut stream).ends_with("/a\n"));
}

#[test]
fn what_is_no_request_is_refused() {
    let running = Running::start();
    let status = |request: &[u8]| {
        let said = running.says(request);
        said.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(b"\x00\x00\x00\x10garbage\r\n\r\n"), "400");
    assert_eq!(status(b"\xff\xfe\xfd\r\n\r\n"), "400");
    assert_eq!(status(b"GET /\xff HTTP/1.1\r\nHo\x00st: x\r\n\r\n"), "400");
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "405");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(status(many.as_bytes()), "431");
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(status(long.as_bytes()), "431");
    assert_eq!(status(b"GET /fine HTTP/1.1\r\n\r\n"), "200", "it goes on");
}

#[test]
fn bytes_without_sense_end_nothing_but_their_connection() {
    let running = Running::start();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
        }
        // It may be closed before all is sent.
        let mut stream = running.connect();
        let _ = stream.write_all(&bytes);
    }
    assert!(running.says(b"GET /a HTTP/1.1\r\n\r\n").ends_with("/a\n"));
}

#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let running = Running::start();
    let mut silent: Vec<TcpStream> = (0..3 * CONNECTIONS_MAX).map(|_| running.connect()).collect();
    assert!(running.says(b"GET /a HTTP/1.1\r\n\r\n").ends_with("/a\n"));
    let first = &mut silent[0];
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0, "the first made room");
}

#[test]
fn whoever_does_not_take_an_answer_holds_up_nobody() {
    let running = Running::start();
    let mut slow: Vec<TcpStream> = (0..3).map(|_| running.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
    }
    assert!(running.says(b"GET /a HTTP/1.1\r\n\r\n").ends_with("/a\n"));
    let said = read(&mut slow[0]);
    assert_eq!(said.len() - said.find("\r\n\r\n").unwrap() - 4, LARGE);
}

#[test]
fn a_thread_that_is_told_to_stop_ends_whoever_is_connected() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.write_all(b"GET /").unwrap();
    drop(running);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
}
