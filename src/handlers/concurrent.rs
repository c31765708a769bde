//! Waiting for several futures of one task, without a task each.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// Runs all, returns their results in order.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        let mut is_done = true;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *result = Some(value),
                    Poll::Pending => is_done = false,
                }
            }
        }
        match is_done {
            true => Poll::Ready(results.drain(..).map(|r| r.expect("all are done")).collect()),
            false => Poll::Pending,
        }
    })
    .await
}

/// Returns when the first is done; the others are dropped. Of none, never waits.
pub async fn first<F: Future>(futures: impl IntoIterator<Item = F>) -> Option<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    poll_fn(move |context| {
        if futures.is_empty() {
            return Poll::Ready(None);
        }
        for future in &mut futures {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
        }
        Poll::Pending
    })
    .await
}

/// The future's result, or `None` where `end` comes first.
pub async fn before<T>(
    future: impl Future<Output = T>,
    end: impl Future<Output = ()>,
) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(end));
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => end.as_mut().poll(context).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use super::*;

    fn poll<F: Future>(future: F) -> Poll<F::Output> {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn all_waits_for_the_last_and_keeps_the_order() {
        assert_eq!(poll(all([ready(1), ready(2)])), Poll::Ready(vec![1, 2]));
        let one_pending: Vec<Pin<Box<dyn Future<Output = i32>>>> =
            vec![Box::pin(ready(1)), Box::pin(pending())];
        assert_eq!(poll(all(one_pending)), Poll::Pending);
    }

    #[test]
    fn what_is_done_counts_before_the_end_and_nothing_after_it() {
        assert_eq!(poll(before(ready(1), ready(()))), Poll::Ready(Some(1)));
        assert_eq!(poll(before(pending::<i32>(), ready(()))), Poll::Ready(None));
        assert_eq!(poll(before(pending::<i32>(), pending())), Poll::Pending);
    }

    #[test]
    fn first_takes_whichever_is_done_and_never_waits_for_none() {
        let futures: Vec<Pin<Box<dyn Future<Output = i32>>>> =
            vec![Box::pin(pending()), Box::pin(ready(2))];
        assert_eq!(poll(first(futures)), Poll::Ready(Some(2)));
        assert_eq!(poll(first(Vec::<std::future::Ready<i32>>::new())), Poll::Ready(None));
        assert_eq!(poll(first([pending::<i32>()])), Poll::Pending);
    }
}
