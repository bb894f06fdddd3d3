//! The queue of events: by time, and by the order in which they were put in where times are equal.
//!
//! The heap moves keys of 24 bytes; the events lie still beside it. A tree that held the events themselves spent a quarter of a run on
//! moving them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Time;
use crate::fast::event::Event;

/// An event, with the entry of the record that it is an effect of.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) time: Time,
    pub(crate) cause: Option<u64>,
    pub(crate) event: Event,
}

/// What is to happen.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Time, order, and where the event lies.
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<(Option<u64>, Event)>>,
    free: Vec<usize>,
    sequence: u64,
}

impl Queue {
    /// Puts an event in.
    pub(crate) fn push(&mut self, time: Time, cause: Option<u64>, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some((cause, event));
                place
            }
            None => {
                self.events.push(Some((cause, event)));
                self.events.len() - 1
            }
        };
        self.sequence += 1;
        self.heap.push(Reverse((time, self.sequence, place)));
    }

    /// Takes the next event out, if it is due by `end`.
    pub(crate) fn pop(&mut self, end: Time) -> Option<Due> {
        let Reverse((time, _, place)) = *self.heap.peek()?;
        if end < time {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        let (cause, event) = self.events[place].take()?;
        Some(Due { time, cause, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_their_order() {
        let mut queue = Queue::default();
        for (time, node) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            queue.push(time, None, Event::Boot(node));
        }
        assert!(queue.pop(2).is_none(), "not due yet");
        let mut order = Vec::new();
        while let Some(due) = queue.pop(9) {
            if let Event::Boot(node) = due.event {
                order.push((due.time, node));
            }
        }
        assert_eq!(order, [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)]);
    }
}
