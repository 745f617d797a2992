//! What becomes of one record of a batch: it succeeds, it comes back, or it is set aside. A
//! poison record, or one that makes us panic, fails alone and never blocks its call.

/// Why a record was not handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It can never succeed: unparsable, unknown version, invalid, a conflicting duplicate.
    /// It goes to `parked`, with this reason, and is acknowledged.
    #[error("permanent: {0}")]
    Permanent(String),
    /// It may succeed later: a throttle, a timeout, a full disk. It goes back to its queue.
    #[error("transient: {0}")]
    Transient(String),
}

impl From<crate::sqlite::StoreError> for Failure {
    fn from(error: crate::sqlite::StoreError) -> Self {
        if error.is_transient() {
            Self::Transient(error.to_string())
        } else {
            Self::Permanent(error.to_string())
        }
    }
}

/// Runs one record; a panic is a permanent failure of that record.
pub async fn alone<T>(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Failure::Permanent("the handler panicked".to_owned())),
        Err(_) => Err(Failure::Transient("the handler was stopped".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_record_fails_alone() {
        let poisoned = alone::<()>(async { panic!("a planted bug") }).await;
        assert_eq!(poisoned, Err(Failure::Permanent("the handler panicked".to_owned())));
        assert_eq!(alone(async { Ok(1) }).await, Ok(1));
    }
}
