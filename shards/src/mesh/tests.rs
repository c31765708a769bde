//! The mesh without an executor first (what is queued when), then on real ones.

use std::pin::pin;
use std::task::Waker;

use glommio::{LocalExecutorBuilder, Placement};

use super::*;

type Port = Rc<MeshPort<u64, u64>>;

fn pair(capacity: usize) -> (Port, Port) {
    let mut seats = build(2, capacity).unwrap().into_iter();
    (seats.next().unwrap().sit().0, seats.next().unwrap().sit().0)
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn now<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it had to be ready"),
    }
}

fn incoming(port: &Port, from: ShardId) -> Vec<Incoming<u64>> {
    let mut messages = Vec::new();
    port.drain(from, || {}, |message| messages.push(message));
    messages
}

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

#[test]
fn requests_arrive_in_order_and_replies_find_their_callers() {
    let (a, b) = pair(8);
    let calls: Vec<_> = (0..8).map(|number| now(a.call(B, number))).collect();
    let mut seen = Vec::new();
    for message in incoming(&b, A).into_iter().rev() {
        let Incoming::Request(caller, number) = message else { panic!("no cancellations") };
        seen.push(number);
        b.reply(caller, number * 10);
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1, 0]);
    assert!(incoming(&a, B).is_empty());
    for (number, call) in (0..).zip(calls) {
        assert_eq!(now(call), number * 10);
    }
    assert_eq!(a.under_way(), 0);
}

#[test]
fn caller_waits_for_a_permit_and_goes_on_in_order() {
    let (a, b) = pair(2);
    let _first = now(a.call(B, 1));
    let _second = now(a.call(B, 2));
    let mut third = pin!(a.call(B, 3));
    let mut fourth = pin!(a.call(B, 4));
    assert!(poll_once(third.as_mut()).is_pending());
    assert!(poll_once(fourth.as_mut()).is_pending());
    // Taking the requests out frees nothing: only answers do.
    let callers: Vec<_> = incoming(&b, A)
        .into_iter()
        .map(|message| match message {
            Incoming::Request(caller, _) => caller,
            Incoming::Cancelled(_) => panic!("no cancellations"),
        })
        .collect();
    assert!(poll_once(third.as_mut()).is_pending());
    for caller in callers {
        b.reply(caller, 0);
    }
    incoming(&a, B);
    let _third = match poll_once(third.as_mut()) {
        Poll::Ready(call) => call,
        Poll::Pending => panic!("a permit was freed"),
    };
    assert!(poll_once(fourth.as_mut()).is_ready());
    let order: Vec<_> = incoming(&b, A)
        .into_iter()
        .map(|message| match message {
            Incoming::Request(_, number) => number,
            Incoming::Cancelled(_) => 0,
        })
        .collect();
    assert_eq!(order, [3, 4, 0], "the fourth call was dropped at once and cancelled");
}

#[test]
fn dropped_call_is_cancelled_behind_its_request_and_still_answered() {
    let (a, b) = pair(1);
    drop(now(a.call(B, 1)));
    let messages = incoming(&b, A);
    let [Incoming::Request(caller, 1), Incoming::Cancelled(cancelled)] = messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(caller, cancelled);
    assert!(poll_once(pin!(a.call(B, 2))).is_pending(), "the permit is held until the answer");
    b.reply(caller, 0);
    incoming(&a, B);
    let _call = now(a.call(B, 2));
    assert!(matches!(incoming(&b, A)[..], [Incoming::Request(_, 2)]));
}

#[test]
fn cancellations_never_overflow_the_lane() {
    // The worst case of the module's head: everything under way is cancelled, answered by a peer
    // that does not drain, and replaced by calls that are cancelled too.
    let (a, b) = pair(4);
    let calls: Vec<_> = (0..4).map(|number| now(a.call(B, number))).collect();
    let callers: Vec<_> = incoming(&b, A)
        .into_iter()
        .map(|message| match message {
            Incoming::Request(caller, _) => caller,
            Incoming::Cancelled(_) => panic!("no cancellations yet"),
        })
        .collect();
    drop(calls);
    for caller in callers {
        b.reply(caller, 0);
    }
    incoming(&a, B);
    for number in 0..4 {
        drop(now(a.call(B, number)));
    }
    assert!(poll_once(pin!(a.call(B, 9))).is_pending());
    assert_eq!(incoming(&b, A).len(), 12);
}

#[test]
fn inbox_is_emptied_between_choosing_the_requests_and_handling_them() {
    let (a, b) = pair(4);
    let _call = now(a.call(B, 1));
    let log = RefCell::new(Vec::new());
    let mut next = None;
    b.drain(
        A,
        || {
            // A request sent now belongs to the next round: its event may not be here yet.
            next = Some(now(a.call(B, 2)));
            log.borrow_mut().push("inbox");
        },
        |_| log.borrow_mut().push("request"),
    );
    assert_eq!(*log.borrow(), ["inbox", "request"]);
    assert_eq!(incoming(&b, A).len(), 1);
    drop(next);
}

/// Answers every request with its number until `total` were heard and the flood of `called` own ones is answered.
async fn serve(port: Port, ears: Ears, peer: ShardId, total: u64, called: Rc<Cell<u64>>) {
    let mut listener = ears.listen();
    let mut heard = 0;
    let mut expected = 0;
    while heard < total || called.get() < total || port.under_way() > 0 {
        let drained = port.drain(
            peer,
            || {},
            |message| {
                if let Incoming::Request(caller, number) = message {
                    assert_eq!(number, expected, "in order");
                    expected += 1;
                    heard += 1;
                    port.reply(caller, number);
                }
            },
        );
        if drained == 0 {
            listener.heard().await;
        } else {
            glommio::yield_if_needed().await;
        }
    }
}

#[test]
fn two_shards_that_flood_one_another_both_finish() {
    const CALLS: u64 = 20_000;
    let threads: Vec<_> = build::<u64, u64>(2, 8)
        .unwrap()
        .into_iter()
        .map(|seat| {
            LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(1 << 16)
                .spawn(move || async move {
                    let (port, ears) = seat.sit();
                    glommio::spawn_local(Rc::clone(&port).ring()).detach();
                    let peer = ShardId(1 - port.id.0);
                    let called = Rc::new(Cell::new(0));
                    let flood = glommio::spawn_local({
                        let (port, called) = (Rc::clone(&port), Rc::clone(&called));
                        async move {
                            let mut calls = Vec::new();
                            for number in 0..CALLS {
                                calls.push(port.call(peer, number).await);
                                called.set(number + 1);
                            }
                            let mut sum = 0;
                            for call in calls {
                                sum += call.await;
                            }
                            sum
                        }
                    });
                    serve(Rc::clone(&port), ears, peer, CALLS, called).await;
                    flood.await
                })
                .unwrap()
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), CALLS * (CALLS - 1) / 2);
    }
}
