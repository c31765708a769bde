//! Who waits for all nodes to have applied the metadata up to an index.
//!
//! A proposer knows that its own node has its change. A client that asks another node next should find the
//! change there, too: so the node asks the others, each answers when it has come so far, and who waits is
//! answered when all have. Questions get lost with connections, so they are asked again. A node that is fenced
//! is not waited for, and nobody is waited for longer than the proposer has patience.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chronik_shards::model::{MonotonicMicros, NodeId};

use super::handle::ReplyOnce;

/// Proposers that may wait at once; one more is answered at once.
const WAITING_MAX: usize = 1024;
/// Questions of peers that wait for this node to come so far. The oldest is forgotten for one more: it is
/// asked again.
const ASKED_MAX: usize = 1024;
/// After so long a node is asked again.
const ASK_AGAIN_MS: u64 = 100;

struct Waiting {
    index: u64,
    lacking: BTreeSet<NodeId>,
    asked: MonotonicMicros,
    give_up: MonotonicMicros,
    reply: ReplyOnce<()>,
}

/// A question whether a node has applied the metadata up to an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Question {
    pub(super) node: NodeId,
    pub(super) number: u64,
    pub(super) index: u64,
}

/// See the module's head.
#[derive(Default)]
pub(super) struct Spread {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    asked: VecDeque<Question>,
}

impl Spread {
    /// Notes that somebody waits until all of `nodes` have applied `index`, until `give_up` at most; gives
    /// what is to be asked.
    pub(super) fn begin(
        &mut self,
        now: MonotonicMicros,
        index: u64,
        nodes: BTreeSet<NodeId>,
        give_up: MonotonicMicros,
        reply: ReplyOnce<()>,
    ) -> Vec<Question> {
        if nodes.is_empty() || give_up <= now || self.waiting.len() >= WAITING_MAX {
            reply.answer(Ok(()));
            return Vec::new();
        }
        let number = self.next;
        self.next += 1;
        let waiting = Waiting { index, lacking: nodes, asked: now, give_up, reply };
        let questions = questions(number, &waiting).collect();
        self.waiting.insert(number, waiting);
        questions
    }

    /// A node says that it has come so far.
    pub(super) fn applied(&mut self, node: NodeId, number: u64) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.lacking.remove(&node);
            self.answer_if_done(number);
        }
    }

    /// Time has passed: gives what is to be asked again. Whoever is not one of `there` is not waited for.
    pub(super) fn tick(
        &mut self,
        now: MonotonicMicros,
        there: impl Fn(NodeId) -> bool,
    ) -> Vec<Question> {
        let mut again = Vec::new();
        for number in self.waiting.keys().copied().collect::<Vec<_>>() {
            let waiting = self.waiting.get_mut(&number).expect("the number was just read");
            waiting.lacking.retain(|node| there(*node));
            if waiting.give_up <= now {
                waiting.lacking.clear();
            }
            if now.since(waiting.asked) >= ASK_AGAIN_MS * 1000 {
                waiting.asked = now;
                again.extend(questions(number, waiting));
            }
            self.answer_if_done(number);
        }
        again
    }

    fn answer_if_done(&mut self, number: u64) {
        if self.waiting.get(&number).is_some_and(|waiting| waiting.lacking.is_empty())
            && let Some(waiting) = self.waiting.remove(&number)
        {
            waiting.reply.answer(Ok(()));
        }
    }

    /// Notes a peer's question.
    pub(super) fn note(&mut self, question: Question) {
        if self.asked.contains(&question) {
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(question);
    }

    /// Takes out the questions of peers that are answered with `applied`.
    pub(super) fn reached(&mut self, applied: u64) -> Vec<Question> {
        if self.asked.is_empty() {
            return Vec::new();
        }
        let (reached, open): (Vec<_>, Vec<_>) =
            self.asked.drain(..).partition(|question| question.index <= applied);
        self.asked.extend(open);
        reached
    }
}

fn questions(number: u64, waiting: &Waiting) -> impl Iterator<Item = Question> {
    let index = waiting.index;
    waiting.lacking.iter().map(move |node| Question { node: *node, number, index })
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{Receiver, Sender, unbounded};

    use super::*;

    fn millis(ms: u64) -> MonotonicMicros {
        MonotonicMicros(ms * 1000)
    }

    fn reply(answers: &Sender<u64>, name: u64) -> ReplyOnce<()> {
        let answers = answers.clone();
        ReplyOnce::new(Box::new(move |result| {
            // Dropped with the test, it is no answer.
            if result == Ok(()) {
                answers.send(name).unwrap();
            }
        }))
    }

    fn begun(give_up_ms: u64) -> (Spread, Receiver<u64>, Vec<Question>) {
        let (sender, answers) = unbounded();
        let mut spread = Spread::default();
        let nodes = [NodeId(2), NodeId(3)].into();
        let asked = spread.begin(millis(0), 7, nodes, millis(give_up_ms), reply(&sender, 0));
        (spread, answers, asked)
    }

    #[test]
    fn who_waits_is_answered_when_the_last_node_has_come_so_far() {
        let (mut spread, answers, asked) = begun(1000);
        let question = |node| Question { node: NodeId(node), number: 0, index: 7 };
        assert_eq!(asked, [question(2), question(3)]);
        spread.applied(NodeId(3), 0);
        spread.applied(NodeId(3), 0);
        assert!(answers.is_empty());
        assert_eq!(spread.tick(millis(ASK_AGAIN_MS - 1), |_| true), []);
        assert_eq!(spread.tick(millis(ASK_AGAIN_MS), |_| true), [question(2)], "lost perhaps");
        spread.applied(NodeId(2), 0);
        spread.applied(NodeId(2), 0);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn nobody_waits_for_a_node_that_is_fenced_nor_beyond_its_patience() {
        let (mut spread, answers, _) = begun(1000);
        spread.tick(millis(1), |node| node == NodeId(2));
        assert!(answers.is_empty());
        spread.applied(NodeId(2), 0);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [0]);
        let (mut spread, answers, _) = begun(50);
        spread.tick(millis(49), |_| true);
        assert!(answers.is_empty());
        assert_eq!(spread.tick(millis(50), |_| true), []);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn who_has_nobody_to_wait_for_or_no_place_is_answered_at_once() {
        let (sender, answers) = unbounded();
        let mut spread = Spread::default();
        let mut begin = |nodes: &[i32], give_up, name| {
            let nodes = nodes.iter().map(|node| NodeId(*node)).collect();
            spread.begin(millis(5), 1, nodes, millis(give_up), reply(&sender, name))
        };
        assert_eq!(begin(&[], 9, 1), []);
        assert_eq!(begin(&[2], 5, 2), []);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [1, 2]);
        for _ in 0..WAITING_MAX {
            assert_eq!(begin(&[2], 9, 3).len(), 1);
        }
        assert_eq!(begin(&[2], 9, 4), []);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn peers_are_answered_when_this_node_has_come_so_far_and_their_questions_are_bounded() {
        let mut spread = Spread::default();
        let question = |number, index| Question { node: NodeId(2), number, index };
        for (number, index) in [(0, 5), (1, 9), (0, 5)] {
            spread.note(question(number, index));
        }
        assert_eq!(spread.reached(4), []);
        assert_eq!(spread.reached(8), [question(0, 5)]);
        assert_eq!(spread.reached(9), [question(1, 9)]);
        for number in 0..=ASKED_MAX as u64 {
            spread.note(question(number, 1));
        }
        assert_eq!(spread.reached(1).len(), ASKED_MAX);
    }
}
