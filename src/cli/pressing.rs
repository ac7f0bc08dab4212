//! What every command that encodes layers begins before its work and ends behind it: a press over the cache that was
//! asked for, and progress, which whatever the command says in the end stands below.

use longshore::{
    Result,
    push::{Press, runtime::Ending},
};

use super::{
    Context,
    options::cache::CacheArgs,
    progress::{Progress, ProgressArgs},
};

/// A press at work.
pub(super) struct Pressing<'a> {
    pub(super) press: Press,
    progress: Progress,
    cache: &'a CacheArgs,
    context: &'a Context,
}

impl<'a> Pressing<'a> {
    /// Opens the cache, and begins to show progress.
    pub(super) fn begin(cache: &'a CacheArgs, progress: &ProgressArgs, context: &'a Context) -> Result<Self> {
        let opened = cache.open(context)?;
        let progress = progress.begin(context);
        let press = Press::new(opened, progress.reporter());
        Ok(Self { press, progress, cache, context })
    }

    /// Shows no more progress, and makes the cache as small as it shall be; returns how the work has ended.
    pub(super) fn end<T>(self, ending: Result<Ending<T>>) -> Result<Ending<T>> {
        drop(self.progress);
        let ending = ending?;
        self.cache.trim(&self.press.cache, self.context);
        Ok(ending)
    }
}
