//! Turns panics into errors, so that one connection's or one thread's is not silently everybody's.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs a future to its end; if it panics, returns what the panic said. What the future works on
/// must still be fit for use then.
///
/// # Errors
/// What the panic said, such as `panicked: index out of bounds`.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(describe(&*panic))),
        }
    })
    .await
}

/// The same for code that is not a future.
///
/// # Errors
/// What the panic said.
pub(crate) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| describe(&*panic))
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    match said.or_else(|| panic.downcast_ref::<&str>().copied()) {
        Some(said) => format!("panicked: {}", said.replace(|c: char| c.is_control(), " ")),
        None => "panicked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_leaves_what_was_done() {
        let mut done = Vec::new();
        let working = async {
            for number in 0..3 {
                tokio::task::yield_now().await;
                assert!(number < 2, "no {number}");
                done.push(number);
            }
        };
        assert_eq!(caught(working).await, Err("panicked: no 2".to_owned()));
        assert_eq!(done, [0, 1]);
        assert_eq!(caught(async { 5 }).await, Ok(5));
    }

    #[test]
    fn what_a_panic_said_is_one_line() {
        assert_eq!(caught_now(|| panic!("a\nb")), Err::<(), _>("panicked: a b".to_owned()));
        let odd = caught_now(|| std::panic::panic_any(5));
        assert_eq!(odd, Err::<(), _>("panicked".to_owned()));
    }
}
