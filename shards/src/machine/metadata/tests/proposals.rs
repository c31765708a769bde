//! Proposals that are in the log more than once.

use super::*;

fn id(process: u8, number: u64, floor: u64) -> ProposalId {
    ProposalId { node_id: NodeId(1), incarnation: [process; 16], number, floor }
}

fn state(process: u8) -> ReplicatedState {
    let mut state = ReplicatedState::default();
    let registered = state.apply(1, Some(&id(process, 0, 0)), &register(1, process)).unwrap();
    registered.outcome.unwrap();
    state
}

fn allocated(applied: Option<Applied>) -> Option<Result<ApplyOutcome, Rejection>> {
    applied.map(|applied| applied.outcome)
}

#[test]
fn bytes_of_an_id_never_change() {
    let id =
        ProposalId { node_id: NodeId(258), incarnation: *b"0123456789abcdef", number: 3, floor: 2 };
    assert_eq!(id.encode(), *b"0123456789abcdef\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x02\x01\0\0");
    assert_eq!(ProposalId::decode(&id.encode()), Some(id));
    assert_eq!(ProposalId::decode(&id.encode()[..35]), None);
    assert_eq!(ProposalId::decode(&[0; 24]), None, "as in older logs");
}

#[test]
fn a_proposal_counts_once_however_often_it_is_in_the_log() {
    let mut state = state(7);
    let command = allocate(1, BrokerEpoch(1));
    let first = allocated(state.apply(2, Some(&id(7, 5, 0)), &command)).unwrap().unwrap();
    assert_eq!(first, ApplyOutcome::ProducerIds { first: ProducerId(0), count: PRODUCER_ID_BLOCK });
    for index in 3..6 {
        assert_eq!(state.apply(index, Some(&id(7, 5, 0)), &command), None);
        assert_eq!(state.image().applied(), index);
    }
    // In another order than they were numbered, and below what was said to be settled.
    let second = allocated(state.apply(6, Some(&id(7, 4, 3)), &command)).unwrap().unwrap();
    let expected = ApplyOutcome::ProducerIds { first: ProducerId(1000), count: PRODUCER_ID_BLOCK };
    assert_eq!(second, expected);
    assert_eq!(state.apply(7, Some(&id(7, 2, 0)), &command), None, "settled");
    assert!(state.contains(NodeId(1), [7; 16], 2) && state.contains(NodeId(1), [7; 16], 5));
    assert!(!state.contains(NodeId(1), [7; 16], 6) && !state.contains(NodeId(1), [8; 16], 5));
}

#[test]
fn numbers_beyond_the_window_are_not_remembered_and_not_applied() {
    let mut state = state(7);
    let command = allocate(1, BrokerEpoch(1));
    assert_eq!(state.apply(2, Some(&id(7, PROPOSAL_WINDOW, 0)), &command), None);
    assert!(state.apply(3, Some(&id(7, PROPOSAL_WINDOW, 1)), &command).is_some());
}

#[test]
fn proposals_of_an_earlier_process_change_nothing() {
    let mut state = state(7);
    let stale = |applied| allocated(applied) == Some(Err(Rejection::StaleProposer(NodeId(1))));
    let command = create("t", 1, vec![Assignment { replicas: vec![NodeId(1)] }]);
    assert!(stale(state.apply(2, Some(&id(6, 0, 0)), &command)));
    state.apply(3, Some(&id(8, 0, 0)), &register(1, 8)).unwrap().outcome.unwrap();
    assert!(stale(state.apply(4, Some(&id(7, 9, 0)), &command)));
    assert!(allocated(state.apply(5, Some(&id(8, 1, 0)), &command)).unwrap().is_ok());
    // The same registration once more does not begin a new numbering.
    state.apply(6, Some(&id(8, 0, 0)), &register(1, 8)).unwrap().outcome.unwrap();
    assert_eq!(state.apply(7, Some(&id(8, 1, 0)), &command), None);
}

#[test]
fn a_snapshot_knows_which_proposals_are_in_it() {
    let mut state = state(7);
    let command = allocate(1, BrokerEpoch(1));
    for number in [1, 4, 2] {
        let next = state.image().applied() + 1;
        assert!(state.apply(next, Some(&id(7, number, 1)), &command).is_some());
    }
    let mut restored = ReplicatedState::decode(&state.encode()).unwrap();
    assert_eq!(restored, state);
    let next = restored.image().applied() + 1;
    assert_eq!(restored.apply(next, Some(&id(7, 4, 1)), &command), None);
}
