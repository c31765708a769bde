//! A topic and the producers that write to it, ready to run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chronik_protocol::messages::{FetchRequest, ProduceRequest};

use crate::engine::{Load, Pace, Tally};
use crate::error::BenchError;
use crate::fetch::{FETCH_VERSION_MAX, Fetch, FetchShape, SendTimeTable, Span};
use crate::produce::answer::GoodAnswer;
use crate::produce::batch::{BatchShape, BatchTemplate, Numbering};
use crate::produce::template::ProduceTemplate;
use crate::produce::{Exchange, Produce, SendTimes};
use crate::topic::{Topic, TopicSpec};
use crate::wire::Wire;

/// The newest version of Produce that names topics; the next has their ids instead.
const PRODUCE_VERSION_MAX: i16 = 12;
/// Different batches there are: more would only push each other out of the client's caches.
const SEEDS: u64 = 8;
/// Largest answer to a Produce request that is believed.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What producers do.
#[derive(Clone, PartialEq, Debug)]
pub struct ProducePlan {
    /// When the server answers: 0, 1, or −1 for all.
    pub acks: i16,
    /// What a batch holds.
    pub shape: BatchShape,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Batches in a request, each for another partition.
    pub batches_per_request: usize,
    /// Connections, each with a producer.
    pub connections: usize,
    /// Requests under way on each.
    pub in_flight: usize,
    /// Records a second over all of them; `None`: closed loop.
    pub rate: Option<f64>,
    /// Threads of the client.
    pub threads: usize,
    /// Ends after so many requests.
    pub requests_max: Option<u64>,
}

impl ProducePlan {
    /// Records of one request.
    #[must_use]
    pub const fn request_records(&self) -> u64 {
        (self.shape.records * self.batches_per_request) as u64
    }

    /// Requests under way at a time where that is what limits.
    #[must_use]
    pub fn closed_loop_slots(&self) -> Option<u64> {
        self.rate.is_none().then_some((self.connections * self.in_flight) as u64)
    }
}

/// Name of an acks level, as clients are configured.
#[must_use]
pub fn acks_name(acks: i16) -> &'static str {
    match acks {
        0 => "acks=0",
        1 => "acks=1",
        _ => "acks=all",
    }
}

/// Producers and their topic, before a connection is made.
pub struct Producers {
    /// Where they write.
    pub topic: Topic,
    /// How their batches are numbered.
    pub numbering: Numbering,
    /// What they do.
    pub plan: ProducePlan,
    send_times: Option<Arc<SendTimeTable>>,
    exchanges: Arc<[Exchange]>,
    /// For each leader, the exchanges with its partitions.
    routes: Vec<(SocketAddr, Arc<[usize]>)>,
}

impl Producers {
    /// Encodes all requests to a topic.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn prepare(wire: &Wire, topic: Topic, plan: ProducePlan) -> Result<Self, BenchError> {
        Self::encode(wire.version::<ProduceRequest>(PRODUCE_VERSION_MAX)?, topic, plan)
    }

    /// Encodes the requests that a broker would get, for a server that is none and listens at `addresses`: the
    /// connections go to them in turn.
    ///
    /// # Errors
    /// [`BenchError`].
    ///
    /// # Panics
    /// Without addresses.
    pub fn bare_loads(
        plan: ProducePlan,
        addresses: &[SocketAddr],
    ) -> Result<Vec<Load<Produce>>, BenchError> {
        let topic = Topic {
            // As long as the names that brokers get.
            name: "chronik-bench-1700000000-10000-10".to_owned(),
            leaders: vec![addresses[0]; plan.partitions],
        };
        let mut loads = Self::encode(PRODUCE_VERSION_MAX, topic, plan)?.loads();
        let places = loads.iter_mut().flat_map(|load| &mut load.addresses);
        for (place, address) in places.zip(addresses.iter().cycle()) {
            *place = *address;
        }
        Ok(loads)
    }

    fn encode(version: i16, topic: Topic, plan: ProducePlan) -> Result<Self, BenchError> {
        let templates: Vec<BatchTemplate> =
            (0..SEEDS).map(|seed| BatchTemplate::build(plan.shape, seed)).collect();
        let mut leaders: Vec<SocketAddr> = topic.leaders.clone();
        leaders.sort_unstable();
        leaders.dedup();
        let mut exchanges = Vec::new();
        let mut routes = Vec::new();
        for leader in leaders {
            let led: Vec<usize> = (0..topic.leaders.len())
                .filter(|partition| topic.leaders[*partition] == leader)
                .collect();
            let first = exchanges.len();
            for partitions in requests(&led, plan.batches_per_request) {
                exchanges.push(exchange(version, &topic.name, &plan, &partitions, &templates)?);
            }
            routes.push((leader, (first..exchanges.len()).collect()));
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis());
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let numbering = Numbering::begin(now_ms, plan.connections as u64);
        let exchanges = exchanges.into();
        Ok(Self { topic, numbering, plan, send_times: None, exchanges, routes })
    }

    /// Notes when each batch is due.
    #[must_use]
    pub fn noting(mut self, send_times: Arc<SendTimeTable>) -> Self {
        self.send_times = Some(send_times);
        self
    }

    /// One load a thread, the connections spread over them and over the leaders.
    #[must_use]
    pub fn loads(&self) -> Vec<Load<Produce>> {
        let threads = self.plan.threads.min(self.plan.connections);
        (0..threads).map(|thread| self.load(thread, threads)).collect()
    }

    fn load(&self, thread: usize, threads: usize) -> Load<Produce> {
        let plan = &self.plan;
        let mut traffic = Produce::new(Arc::clone(&self.exchanges), self.numbering, plan.acks);
        if let Some(send_times) = &self.send_times {
            traffic = traffic.noting(Arc::clone(send_times) as Arc<dyn SendTimes>);
        }
        if let Some(requests) = plan.requests_max {
            let (share, rest) = (requests / threads as u64, requests % threads as u64);
            traffic = traffic.limited(share + u64::from((thread as u64) < rest));
        }
        let mut addresses = Vec::new();
        for number in (thread..plan.connections).step_by(threads) {
            let (leader, route) = &self.routes[number % self.routes.len()];
            addresses.push(*leader);
            traffic.add_producer(number as u64, plan.partitions, Arc::clone(route));
        }
        let share = addresses.len() as f64 / plan.connections as f64;
        let pace = match plan.rate {
            Some(rate) => Pace::Rate(rate / plan.request_records() as f64 * share),
            None => Pace::Closed,
        };
        Load {
            name: format!("producers-{thread}"),
            addresses,
            traffic,
            in_flight: plan.in_flight,
            pace,
            frame_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

/// What consumers do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchPlan {
    /// How they ask.
    pub shape: FetchShape,
    /// How many read everything, each for itself.
    pub consumers: usize,
    /// Connections of each, the partitions spread over them.
    pub connections: usize,
    /// Where each partition ends, if it does.
    pub until: Option<Vec<i64>>,
}

impl FetchPlan {
    /// The consumers of a topic, as one load on one thread.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn load(
        &self,
        wire: &Wire,
        topic: &Topic,
        prepare: impl FnOnce(Fetch) -> Fetch,
    ) -> Result<Load<Fetch>, BenchError> {
        let version = wire.version::<FetchRequest>(FETCH_VERSION_MAX)?;
        let mut traffic = prepare(Fetch::new(topic.name.clone(), version, self.shape));
        let mut addresses = Vec::new();
        for _ in 0..self.consumers {
            for (leader, spans) in self.connections(topic) {
                addresses.push(leader);
                traffic.add_consumer(&spans)?;
            }
        }
        let bytes_max = usize::try_from(self.shape.bytes_max).expect("a positive size");
        Ok(Load {
            name: "consumers".to_owned(),
            addresses,
            traffic,
            in_flight: 1,
            pace: Pace::Closed,
            // A server may go beyond by a batch, and there are the other fields.
            frame_bytes_max: bytes_max * 2 + (16 << 20),
        })
    }

    /// Each leader's partitions, over at most the planned number of connections.
    fn connections(&self, topic: &Topic) -> Vec<(SocketAddr, Vec<Span>)> {
        let mut connections: Vec<(SocketAddr, Vec<Span>)> = Vec::new();
        for (index, leader) in topic.leaders.iter().enumerate() {
            let span = Span {
                partition: i32::try_from(index).expect("Kafka counts partitions in 32 bits"),
                until: self.until.as_ref().map(|until| until[index]),
            };
            let same = |(known, _): &&mut (SocketAddr, Vec<Span>)| known == leader;
            if connections.iter_mut().filter(same).count() < self.connections {
                connections.push((*leader, vec![span]));
                continue;
            }
            let fewest = connections.iter_mut().filter(same).min_by_key(|(_, led)| led.len());
            fewest.expect("at least one connection is planned").1.push(span);
        }
        connections
    }
}

/// The partitions of each request: all of them in turn, `count` at a time. The last begins early where they
/// do not divide, so that all requests are of one size.
fn requests(partitions: &[usize], count: usize) -> Vec<Vec<usize>> {
    let count = count.min(partitions.len());
    let last = partitions.len() - count;
    (0..partitions.len())
        .step_by(count)
        .map(|first| partitions[first.min(last)..][..count].to_vec())
        .collect()
}

fn exchange(
    version: i16,
    topic: &str,
    plan: &ProducePlan,
    partitions: &[usize],
    templates: &[BatchTemplate],
) -> Result<Exchange, BenchError> {
    let batches: Vec<(i32, &BatchTemplate)> = partitions
        .iter()
        .map(|partition| {
            let index = i32::try_from(*partition).expect("Kafka counts partitions in 32 bits");
            (index, &templates[partition % templates.len()])
        })
        .collect();
    let count = partitions.len() as u64;
    Ok(Exchange {
        request: ProduceTemplate::encode(version, topic, plan.acks, &batches)?,
        answer: GoodAnswer::new(version, topic, batches.len())?,
        moves: Tally::request(count * plan.shape.records as u64, count * plan.shape.value_bytes()),
        batch_offsets: plan.shape.records as i64,
    })
}

/// A topic for one measurement. Batches are numbered by timestamps that lie in the past: they are not to be
/// taken for old ones.
#[must_use]
pub fn topic_spec(
    name: String,
    partitions: usize,
    replication_factor: i16,
    configs: &[(String, String)],
) -> TopicSpec {
    let mut configs = configs.to_vec();
    if !configs.iter().any(|(key, _)| key == "retention.ms") {
        configs.push(("retention.ms".to_owned(), "-1".to_owned()));
    }
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    TopicSpec { name, partitions, replication_factor, configs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_request_and_all_requests_are_of_one_size() {
        assert_eq!(requests(&[0, 1, 2, 3, 4], 2), [vec![0, 1], vec![2, 3], vec![3, 4]]);
        assert_eq!(requests(&[7, 8], 1), [[7], [8]]);
        assert_eq!(requests(&[7, 8], 5), [[7, 8]]);
    }

    #[test]
    fn partitions_are_spread_over_connections_to_their_leaders() {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let topic = Topic { name: "t".to_owned(), leaders: vec![a, b, a, a, a, b] };
        let shape =
            FetchShape { bytes_max: 1, partition_bytes_max: 1, wait_ms: 1, record_bytes: 1 };
        let until = Some(vec![0, 10, 20, 30, 40, 50]);
        let plan = FetchPlan { shape, consumers: 1, connections: 2, until };
        let part = |index: i32| Span { partition: index, until: Some(i64::from(index) * 10) };
        assert_eq!(
            plan.connections(&topic),
            [
                (a, vec![part(0), part(3)]),
                (b, vec![part(1)]),
                (a, vec![part(2), part(4)]),
                (b, vec![part(5)]),
            ]
        );
    }

    #[test]
    fn numbered_topics_do_not_expire_unless_told_to() {
        let spec = topic_spec("t".to_owned(), 3, -1, &[]);
        assert_eq!(spec.configs, [("retention.ms".to_owned(), "-1".to_owned())]);
        let told = [("retention.ms".to_owned(), "7".to_owned())];
        assert_eq!(topic_spec("t".to_owned(), 3, -1, &told).configs, told);
    }
}
