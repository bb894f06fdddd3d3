//! Stops a world's time at this instant, so that what must happen now can be done from outside: a trap has sprung.
//!
//! A run is a thread of its own, and so is this. A network's driver ends its run as soon as it can once it has been asked to.

use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
    static WAITS: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Asks for it.
pub fn ask() {
    ASKED.set(true);
    if let Some(waker) = WAITS.take() {
        waker.wake();
    }
}

/// Whether it has been asked for; takes the question back. For a driver that looks after each of its steps.
pub fn taken() -> bool {
    ASKED.take()
}

/// Ready when it has been asked for, and takes the question back. For the one driver of the thread.
pub async fn asked() {
    std::future::poll_fn(|cx| {
        if ASKED.take() {
            return Poll::Ready(());
        }
        WAITS.set(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}
