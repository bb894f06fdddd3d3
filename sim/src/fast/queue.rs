//! The queue of events: by time, and by the order in which they were put in where times are equal.
//!
//! What is to come lies sorted, the next at the end. Most events are put in a millisecond or two ahead, when hardly anything else is due
//! sooner: they find their place in a step or two from that end, and to take the next one out costs nothing. A heap compares half a dozen
//! times for each, and the processor can guess none of it. Timers of seconds are put in deeper, by bisection; that moves the
//! keys behind them, of 16 bytes each, and the events themselves lie still beside.

use crate::clock::Time;
use crate::fast::event::Event;

/// An event, with the entry of the record that it is an effect of.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) time: Time,
    pub(crate) cause: Option<u64>,
    pub(crate) event: Event,
}

/// When an event is due, and where it lies.
#[derive(Debug, Clone, Copy)]
struct Key {
    time: Time,
    place: usize,
}

/// How many keys are looked at one by one before the place is found by bisection.
const NEAR: usize = 8;

/// What is to happen.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The next one last; of equal times the first that was put in.
    keys: Vec<Key>,
    events: Vec<Option<(Option<u64>, Event)>>,
    free: Vec<usize>,
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
        let near = self.keys.len().saturating_sub(NEAR);
        let later = |key: &Key| time < key.time;
        let index = match self.keys[near..].iter().rposition(later) {
            Some(index) => near + index + 1,
            None => self.keys[..near].partition_point(later),
        };
        self.keys.insert(index, Key { time, place });
    }

    /// When the next event is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.keys.last().map(|key| key.time)
    }

    /// Takes the next event out, if it is due by `end`.
    pub(crate) fn pop(&mut self, end: Time) -> Option<Due> {
        let Key { time, place } = *self.keys.last()?;
        if end < time {
            return None;
        }
        self.keys.pop();
        self.free.push(place);
        let (cause, event) = self.events[place].take()?;
        Some(Due { time, cause, event })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::Rng;

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

    #[test]
    fn near_and_far_events_come_as_from_a_map() {
        let mut rng = Rng::new(1, 0);
        let (mut queue, mut map) = (Queue::default(), BTreeMap::new());
        let mut now = 0;
        for count in 0..20_000 {
            let reach = if rng.one_in(4) { 1000 } else { 10 };
            let time = now + rng.below(reach);
            queue.push(time, None, Event::Boot(count));
            map.insert((time, count), ());
            while rng.one_in(2) || 200 < map.len() {
                let Some(((time, count), ())) = map.pop_first() else {
                    break;
                };
                let due = queue.pop(Time::MAX).unwrap();
                assert!(matches!(due.event, Event::Boot(node) if node == count));
                assert_eq!(due.time, time);
                now = time;
            }
        }
    }
}
