//! Tar archives: their headers, their entries, and what lies where in one.

mod entry;
mod entry_data;
mod header;
mod index;
mod reader;

pub use self::{
    entry::{EntryHead, EntryKind},
    entry_data::EntryData,
    index::Index,
    reader::Entries,
};
pub(super) use self::{header::is_tar, index::normalized};
