use std::net::{Ipv4Addr, TcpListener};

use chronik_tuning::host::Host;

use super::*;
use crate::cli::CommandLine;

#[test]
fn a_directory_is_locked_until_its_holder_lets_go() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("deep/data");
    let lock = DirectoryLock::acquire(&directory).unwrap();
    let refused = DirectoryLock::acquire(&directory).unwrap_err();
    assert!(matches!(&refused, BootError::DirectoryInUse(path) if *path == directory));
    assert!(refused.to_string().contains(directory.to_str().unwrap()));
    drop(lock);
    DirectoryLock::acquire(&directory).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let directory = file.path().join("data");
    let refused = DirectoryLock::acquire(&directory).unwrap_err();
    assert!(refused.to_string().contains(directory.to_str().unwrap()));
}

#[test]
fn an_occupied_port_is_named_and_a_free_one_stays_free() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let refused = check_port_free(address).unwrap_err();
    assert!(matches!(refused, BootError::AddressInUse(named) if named == address));
    assert!(refused.to_string().contains(&address.to_string()));
    drop(listener);
    check_port_free(address).unwrap();
    check_port_free(address).unwrap();
}

#[test]
fn a_port_shared_with_reuseport_counts_as_occupied() {
    use std::os::fd::AsRawFd;
    // As the runtime listens: the option must be set before the bind, which std cannot do.
    // SAFETY: plain socket calls on a descriptor that is wrapped before anything can fail.
    let listener = unsafe {
        let descriptor = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        <TcpListener as std::os::fd::FromRawFd>::from_raw_fd(descriptor)
    };
    let one = 1i32;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the pointers are to values that outlive the calls, with their sizes.
    unsafe {
        let descriptor = listener.as_raw_fd();
        let option = (&raw const one).cast();
        assert_eq!(
            libc::setsockopt(descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, option, 4),
            0
        );
        assert_eq!(libc::bind(descriptor, (&raw const address).cast(), 16), 0);
        assert_eq!(libc::listen(descriptor, 1), 0);
    }
    let address = listener.local_addr().unwrap();
    assert!(matches!(check_port_free(address), Err(BootError::AddressInUse(_))));
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    // TEST-NET-1 (RFC 5737) is nobody's.
    let refused = check_port_free("192.0.2.1:9092".parse().unwrap()).unwrap_err();
    assert!(matches!(refused, BootError::Address { .. }));
    assert!(refused.to_string().contains("192.0.2.1:9092"));
}

#[test]
fn stop_signals_arrive_in_the_channel_and_are_taken_once() {
    let signals = stop_signals().unwrap();
    // SAFETY: the signal's handler is installed.
    unsafe { libc::raise(libc::SIGTERM) };
    assert_eq!(signals.recv(), Ok(StopSignal::Terminate));
    // SAFETY: the signal's handler is installed.
    unsafe { libc::raise(libc::SIGINT) };
    assert_eq!(signals.recv(), Ok(StopSignal::Interrupt));
    assert!(matches!(stop_signals(), Err(BootError::System { .. })));
}

/// Node `node_id` on a port that was free a moment ago.
fn config(data: &Path, node_id: i32) -> NodeConfig {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let command = CommandLine {
        node_id: Some(node_id),
        kafka_port: Some(listener.local_addr().unwrap().port()),
        data_dir: Some(data.to_owned()),
        ..CommandLine::default()
    };
    NodeConfig::resolve(command, &Host::read().unwrap()).unwrap()
}

#[test]
fn a_claim_holds_the_directory_and_remembers_the_node() {
    let data = tempfile::tempdir().unwrap();
    let first = claim(&config(data.path(), 1)).unwrap();
    assert!(matches!(claim(&config(data.path(), 1)), Err(BootError::DirectoryInUse(_))));
    let identity = first.identity.clone();
    drop(first);
    assert!(matches!(
        claim(&config(data.path(), 2)),
        Err(BootError::Identity(IdentityError::OtherNode { found: 1, .. }))
    ));
    assert_eq!(claim(&config(data.path(), 1)).unwrap().identity, identity);
}

#[test]
fn records_without_their_metadata_log_are_refused_unless_loss_is_accepted() {
    let data = tempfile::tempdir().unwrap();
    drop(claim(&config(data.path(), 1)).unwrap());
    std::fs::create_dir(data.path().join("shards")).unwrap();
    let refused = claim(&config(data.path(), 1)).unwrap_err();
    assert!(matches!(refused, BootError::MetadataMissing(_)), "{refused}");
    let accepting = NodeConfig { accept_data_loss: true, ..config(data.path(), 1) };
    drop(claim(&accepting).unwrap());
    std::fs::create_dir(data.path().join("raft")).unwrap();
    claim(&config(data.path(), 1)).unwrap();
}
