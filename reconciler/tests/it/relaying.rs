//! What an API does besides answering: it brings the outbox to Kafka. And its customers, who go on buying.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use boxoffice_schema::frame;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::Record;
use boxoffice_schema::scripts::{Outcome, lease, trim};

use crate::recovering::LiveSale;
use crate::stack::{FIRST, Stack};

const TOKEN: &str = "relay";

/// All that waits in the first shard's outbox.
pub(crate) async fn outbox(stack: &Stack) -> Vec<Record> {
    let key = stack.config.keys().outbox(FIRST);
    let mut range = redis::cmd("XRANGE");
    let entries: Vec<(String, HashMap<String, Vec<u8>>)> =
        range.arg(key).arg("-").arg("+").query_async(&mut stack.redis.clone()).await.unwrap();
    let frames = entries.iter().map(|(_, fields)| &fields[frame::FRAME_FIELD]);
    let messages = frames.flat_map(|bytes| frame::messages(FIRST, bytes).unwrap());
    messages.map(|message| Record::decode(&message.value).unwrap()).collect()
}

/// Removes what was brought to Kafka, up to a position.
pub(crate) async fn trim_outbox(stack: &Stack, last: Position) {
    let keys = stack.config.keys();
    let epoch: i64 = stack.run_script(&lease(&keys, FIRST, TOKEN, 10_000)).await;
    let epoch = u32::try_from(epoch).unwrap();
    // A recovery in between makes this fail, as it makes a relay's trim fail.
    let _ = stack.try_script::<i64>(&trim(&keys, FIRST, TOKEN, epoch, last)).await;
}

/// Does a job while the first shard's outbox is relayed.
pub(crate) async fn while_relayed<T>(stack: &Stack, job: impl Future<Output = T>) -> T {
    let relay = async {
        loop {
            let records = outbox(stack).await;
            stack.append(&records).await;
            if let Some(last) = records.last() {
                trim_outbox(stack, last.position).await;
            }
            // Its pace, as a relay has one; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = job => done,
        () = relay => unreachable!("the relay does not end"),
    }
}

/// Does a job while tickets are sold, and some are held and given back, under keys that begin as given. Returns also how
/// many there were.
pub(crate) async fn while_sold<T>(
    stack: &Stack,
    sale: &LiveSale,
    keys: &str,
    job: impl Future<Output = T>,
) -> (T, usize) {
    let mut sold = 0;
    let customers = async {
        loop {
            let key = format!("{keys}-{sold}");
            if sold % 3 == 0 {
                let held = sale.hold(stack, &key, 600_000).await;
                sale.cancel(stack, held).await;
            } else {
                let outcome = sale.book(stack, &key).await;
                assert!(matches!(outcome, Outcome::Changed(_)), "{outcome:?}");
            }
            sold += 1;
            // The pace of the sale; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let done = tokio::select! {
        done = job => done,
        () = customers => unreachable!("the customers do not end"),
    };
    (done, sold)
}
