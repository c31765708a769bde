//! What the client sends to a bare server: a broker's requests, to the byte, with answers that say nothing.

use crate::engine::{Fault, Frame, Outbox, Request, Tally, Traffic};

/// How a bare server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BareAnswer {
    /// With the correlation id alone.
    Short,
    /// With the frame itself.
    Whole,
    /// Not at all.
    None,
}

/// Another traffic's requests, sent to a bare server.
#[derive(Debug)]
pub struct Bare<T> {
    requests: T,
    answer: BareAnswer,
}

impl<T> Bare<T> {
    /// Sends what `requests` would send to a broker.
    pub const fn new(requests: T, answer: BareAnswer) -> Self {
        Self { requests, answer }
    }
}

impl<T: Traffic> Traffic for Bare<T> {
    fn next_request(
        &mut self,
        connection: usize,
        correlation_id: i32,
        due_ns: u64,
        outbox: &mut Outbox,
    ) -> Option<Request> {
        let before = outbox.appended();
        let request = self.requests.next_request(connection, correlation_id, due_ns, outbox)?;
        // The length of the frame, which a whole answer has as well.
        let tag = outbox.appended() - before;
        Some(Request { tag, answered: self.answer != BareAnswer::None, ..request })
    }

    fn judge(
        &mut self,
        _connection: usize,
        request: &Request,
        frame: Frame<'_>,
        _now_ns: u64,
    ) -> Result<Tally, Fault> {
        const PREFIX_BYTES: u64 = 4;
        let due = match self.answer {
            BareAnswer::Short => 4,
            BareAnswer::Whole => request.tag - PREFIX_BYTES,
            BareAnswer::None => return Err(Fault::Wrong("an answer of a mute server".to_owned())),
        };
        let found = frame.as_slice().len() as u64;
        if found == due {
            return Ok(request.moves);
        }
        Err(Fault::Wrong(format!("an answer of {found} bytes where {due} are due")))
    }
}
