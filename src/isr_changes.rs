//! In-sync sets on their way from the leading shards to the controller.
//!
//! The shard holds on to what it proposed until it is committed or refused, since either may count. So each
//! change is proposed until it is known which: again where it may have been lost, which is harmless, as it names the
//! partition epoch that it follows and so counts once.

use std::rc::Rc;
use std::time::Duration;

use chronik_shards::format::metadata_command::{ChangePartition, MetadataCommand};
use chronik_shards::io::local::Permits;
use chronik_shards::shard::ShardHandle;

use crate::control::ControlError;
use crate::proposals::Proposals;

/// Changes of one shard that are under way; others wait in line.
const UNDER_WAY_MAX: usize = 64;
/// Pause before a change is proposed again that could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// Proposes what the shard wants until the node stops.
pub async fn propose(shard: ShardHandle, proposals: Rc<Proposals>) {
    let permits = Rc::new(Permits::new(UNDER_WAY_MAX));
    loop {
        permits.acquire().await;
        let change = shard.next_isr_change().await;
        let (shard, proposals) = (shard.clone(), Rc::clone(&proposals));
        let permits = Rc::clone(&permits);
        glommio::spawn_local(async move {
            propose_one(&shard, &proposals, change).await;
            permits.release();
        })
        .detach();
    }
}

async fn propose_one(shard: &ShardHandle, proposals: &Proposals, change: ChangePartition) {
    let command = MetadataCommand::ChangePartition(change.clone());
    while !shard.is_stopping() {
        match proposals.propose(&command).await {
            // The shard was told of it before this.
            Ok(_) => return,
            Err(error @ (ControlError::Rejected(_) | ControlError::TooLarge(_))) => {
                tracing::debug!(partition = %change.key, %error, "an in-sync set is not taken");
                return shard.isr_change_refused(&change);
            }
            Err(ControlError::Stopped) => return,
            Err(ControlError::Busy | ControlError::TimedOut | ControlError::OutcomeUnknown) => {
                glommio::timer::sleep(PAUSE).await;
            }
        }
    }
}
