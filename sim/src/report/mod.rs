//! A run as one page: what every node, etcd and the clients lived through, on one axis of time.
//!
//! ```text
//!   entries ─┬─ scene    bands and marks of each lane        ─ svg ─┐
//!            ├─ causes   what led to each entry              ─ list ┼─ page.html, style and script included
//!            └─ readout  where each node stands at any time  ───────┘
//! ```
//!
//! The page needs nothing but a browser: no network, no fonts, no library. The drawing is made here; the script only zooms, pans, searches
//! and explains. It is the same for the same run.

mod causes;
mod page;
mod scene;
mod svg;

pub use page::page;
