//! The commands against clusters made of plain values.

mod actions;
mod config;
mod output;
mod wrong;
