//! A member of a group, of either protocol.

use chronik_shards::machine::group::{GroupRequest, GroupResponse};

use super::checker::Checker;
use super::classic_member::ClassicMember;
use super::consumer_member::ConsumerMember;
use super::run::Step;
use super::terms::Terms;
use crate::rng::Rng;

/// Which protocol the members of a group speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Classic,
    Consumer,
    /// One this, one that, and another one after a restart.
    Mixed,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Classic, Self::Consumer, Self::Mixed];
}

/// One incarnation of a member.
pub enum Member {
    Classic(ClassicMember),
    Consumer(ConsumerMember),
}

impl Member {
    pub fn new(kind: Kind, number: u8, is_static: bool, rng: &mut Rng) -> Self {
        let is_classic = kind == Kind::Classic || kind == Kind::Mixed && rng.one_in(2);
        match is_classic {
            true => Self::Classic(ClassicMember::new(number, is_static)),
            false => Self::Consumer(ConsumerMember::new(number, is_static, rng)),
        }
    }

    /// The next request, and how long its answer is waited for.
    pub fn request(
        &mut self,
        terms: &Terms,
        rng: &mut Rng,
        checker: &Checker,
    ) -> (GroupRequest, u64) {
        match self {
            Self::Classic(member) => member.request(terms, rng, checker),
            Self::Consumer(member) => member.request(terms, rng, checker),
        }
    }

    pub fn answer(&mut self, response: GroupResponse, checker: &mut Checker) -> Step {
        match self {
            Self::Classic(member) => member.answer(response, checker),
            Self::Consumer(member) => member.answer(response, checker),
        }
    }

    /// No answer came.
    pub fn timed_out(&mut self) -> Step {
        match self {
            Self::Classic(member) => member.timed_out(),
            Self::Consumer(member) => member.timed_out(),
        }
    }

    /// Says that it leaves, where that is possible.
    pub fn farewell(&self, terms: &Terms) -> Option<GroupRequest> {
        match self {
            Self::Classic(member) => member.farewell(terms),
            Self::Consumer(member) => member.farewell(terms),
        }
    }

    /// Whether it has nothing to do but to go on.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Classic(member) => member.is_settled(),
            Self::Consumer(member) => member.is_settled(),
        }
    }

    /// Its generation or epoch.
    pub fn generation(&self) -> i32 {
        match self {
            Self::Classic(member) => member.generation(),
            Self::Consumer(member) => member.epoch(),
        }
    }

    /// The partitions that it has.
    pub fn parts(&self) -> Vec<i32> {
        match self {
            Self::Classic(member) => member.parts().collect(),
            Self::Consumer(member) => member.parts().collect(),
        }
    }
}
