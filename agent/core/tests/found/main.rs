//! What the simulated worlds found in the state machine, told step by step. `sim/FOUND.md` has the whole list.

mod first;
mod handed;
mod heritage;
mod lapse;
mod making;
mod models;
mod news;
mod planned;
mod rare;
mod story;
mod synchronous;
mod usurper;
