//! Access to the source of an adapter, the same for all adapters.

/// `get_ref`, `get_mut` and `get_pin_mut` of an adapter that has a field `valve`.
macro_rules! accessors {
    ($Adapter:ident<S $(, $Param:ident $(: $Bound:path)?)*>) => {
        impl<S $(, $Param $(: $Bound)?)*> $Adapter<S $(, $Param)*> {
            /// The source, until it is dropped: `None` once the stream has ended.
            pub fn get_ref(&self) -> Option<&S> {
                self.valve.source()
            }

            /// Like [`get_ref`](Self::get_ref), mutably. An item that is taken from the source directly bypasses the
            /// adapter.
            pub fn get_mut(&mut self) -> Option<&mut S> {
                self.valve.source_mut()
            }

            /// Like [`get_mut`](Self::get_mut), for a stream that is pinned.
            pub fn get_pin_mut(self: std::pin::Pin<&mut Self>) -> Option<std::pin::Pin<&mut S>> {
                self.project().valve.source_pin_mut()
            }
        }
    };
}

pub(super) use accessors;
