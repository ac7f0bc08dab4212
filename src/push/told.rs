//! What the user has been told of the sizes of chunks, so that it is said once by all pushes of a command, and sizes
//! only fall.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// How large chunks may be, as the user knows it: pushes that share this tell of it once.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<HashMap<String, u64>>>);

impl Told {
    /// Says by `tell` that chunks for a registry have another size than was to be expected, and at most this one, unless
    /// that was said before. Nobody else speaks meanwhile.
    pub(super) fn once(&self, host: &str, most: u64, tell: impl FnOnce()) {
        let mut told = self.0.lock();
        if told.get(host).is_none_or(|told| most < *told) {
            told.insert(host.to_owned(), most);
            tell();
        }
    }
}
