//! Options that several commands have: each file is what they say of one thing, and makes the library's values of it.

pub(super) mod access;
pub(super) mod cache;
pub(super) mod recipe;
pub(super) mod source;
pub(super) mod transfer;
pub(super) mod value;
