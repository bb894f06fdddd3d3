//! A value that one task publishes and others look at or wait for.
//!
//! As tokio's `watch`, but for one thing: those who wait are woken in the order in which they began to. `watch` wakes them in an order drawn
//! from a generator that also counts the runtimes of the process, which no simulation can repeat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// A value and who publishes it. When that is dropped, whoever waits is told.
pub fn channel<T: Clone>(first: T) -> (Publisher<T>, Published<T>) {
    let published = Published(Arc::new(Inner {
        value: Mutex::new(first),
        changed: Notify::new(),
        over: AtomicBool::new(false),
    }));
    (Publisher(published.clone()), published)
}

/// Who publishes.
#[derive(Debug)]
pub struct Publisher<T>(Published<T>);

impl<T: Clone> Publisher<T> {
    /// Puts the value in place of the last one.
    pub fn publish(&self, value: T) {
        let Published(inner) = &self.0;
        *inner.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        inner.changed.notify_waiters();
    }

    /// The last value.
    #[must_use]
    pub fn get(&self) -> T {
        self.0.get()
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        let Published(inner) = &self.0;
        inner.over.store(true, Ordering::Release);
        inner.changed.notify_waiters();
    }
}

/// What is published.
#[derive(Debug)]
pub struct Published<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    value: Mutex<T>,
    changed: Notify,
    over: AtomicBool,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Published<T> {
    /// The last value.
    #[must_use]
    pub fn get(&self) -> T {
        let value = self.0.value.lock();
        value.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `find` finds something in the value, the present one first. `None`: nothing more is published.
    pub async fn find<R>(&self, mut find: impl FnMut(&T) -> Option<R>) -> Option<R> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // What is published from here on wakes it.
            changed.as_mut().enable();
            if let Some(found) = find(&self.get()) {
                return Some(found);
            }
            if self.0.over.load(Ordering::Acquire) {
                return None;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_order_and_told_of_the_end() {
        let (publisher, published) = channel(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..40).map(|number| {
            let (published, order) = (published.clone(), Arc::clone(&order));
            async move {
                published.find(|value| (*value == 2).then_some(())).await;
                order.lock().unwrap().push(number);
            }
        });
        let waiting: Vec<_> = waiting.map(tokio::spawn).collect();
        tokio::task::yield_now().await;
        publisher.publish(1);
        tokio::task::yield_now().await;
        publisher.publish(2);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
        assert_eq!(published.find(|value| Some(*value)).await, Some(2));
        let last = tokio::spawn(async move { published.find(|_| None::<()>).await });
        tokio::task::yield_now().await;
        drop(publisher);
        assert_eq!(last.await.unwrap(), None);
    }
}
