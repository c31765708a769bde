//! How many requests a shard's connections have sent, what they were told, and what they have fetched.
//!
//! Plain cells of the shard's thread. An error is counted as often as an answer tells it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use chronik_protocol::ApiKey;

/// Keys that are counted, from 0 on.
const KEYS_MAX: usize = 128;

/// The counts of one shard.
#[derive(Debug)]
pub struct RequestCounts {
    /// By key of the API.
    requests: [Cell<u64>; KEYS_MAX],
    errors: RefCell<BTreeMap<(ApiKey, i16), u64>>,
    fetched_records: Cell<u64>,
    fetched_bytes: Cell<u64>,
}

/// The counts at a moment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RequestFigures {
    /// Requests by API, those that came.
    pub requests: Vec<(ApiKey, u64)>,
    /// Errors that answers told, by API and Kafka's code.
    pub errors: Vec<(ApiKey, i16, u64)>,
    /// Records that clients were sent.
    pub fetched_records: u64,
    /// Bytes of their batches.
    pub fetched_bytes: u64,
}

impl Default for RequestCounts {
    fn default() -> Self {
        Self {
            requests: [const { Cell::new(0) }; KEYS_MAX],
            errors: RefCell::default(),
            fetched_records: Cell::new(0),
            fetched_bytes: Cell::new(0),
        }
    }
}

impl RequestCounts {
    /// A request that is served has come.
    pub fn came(&self, api: ApiKey) {
        let place = usize::try_from(api.key()).ok().and_then(|key| self.requests.get(key));
        if let Some(count) = place {
            bump(count, 1);
        }
    }

    /// An answer tells errors, each code so often.
    pub fn failed(&self, api: ApiKey, error_codes: &[(i16, u32)]) {
        if error_codes.is_empty() {
            return;
        }
        let mut errors = self.errors.borrow_mut();
        for (code, count) in error_codes {
            *errors.entry((api, *code)).or_default() += u64::from(*count);
        }
    }

    /// A client is sent records.
    pub fn fetched(&self, records: u64, bytes: u64) {
        bump(&self.fetched_records, records);
        bump(&self.fetched_bytes, bytes);
    }

    /// The counts now.
    #[must_use]
    pub fn figures(&self) -> RequestFigures {
        let requests = ApiKey::ALL.iter().filter_map(|api| {
            let count = self.requests.get(usize::try_from(api.key()).ok()?)?.get();
            (count > 0).then_some((*api, count))
        });
        let errors = self.errors.borrow();
        RequestFigures {
            requests: requests.collect(),
            errors: errors.iter().map(|((api, code), count)| (*api, *code, *count)).collect(),
            fetched_records: self.fetched_records.get(),
            fetched_bytes: self.fetched_bytes.get(),
        }
    }
}

fn bump(count: &Cell<u64>, by: u64) {
    count.set(count.get() + by);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::served::SERVED;

    #[test]
    fn every_api_that_is_served_is_counted() {
        let counts = RequestCounts::default();
        for served in SERVED {
            counts.came(served.api);
        }
        assert_eq!(counts.figures().requests.len(), SERVED.len());
        assert!(counts.figures().requests.iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn errors_add_up_by_api_and_code() {
        let counts = RequestCounts::default();
        counts.failed(ApiKey::Fetch, &[]);
        assert_eq!(counts.figures(), RequestFigures::default());
        counts.failed(ApiKey::Fetch, &[(1, 2), (6, 1)]);
        counts.failed(ApiKey::Produce, &[(6, 1)]);
        counts.failed(ApiKey::Fetch, &[(6, 1)]);
        let errors = counts.figures().errors;
        assert_eq!(errors, [(ApiKey::Produce, 6, 1), (ApiKey::Fetch, 1, 2), (ApiKey::Fetch, 6, 2)]);
    }
}
