//! Settings that blocks of a configuration inherit from the blocks around them, each declared in one line.
//!
//! [`settings!`](settings) makes two types of a list of settings: what holds in a place (each field has a value), and a
//! *layer*, what one block says of it. Layers lie over one another as the blocks do (`http`, `server`, `location`);
//! laid together and settled over the defaults they give what holds. How a file names a setting is not said here.

/// What one block says of a setting, or of a group of settings.
pub trait Layer<T> {
    /// Takes over from the block around it what this block leaves open.
    fn inherit(&mut self, outer: &Self);

    /// The value that holds: what the blocks say, or else `default`.
    fn settle(&self, default: T) -> T;
}

/// The usual case: the innermost block that says anything decides.
impl<T: Clone> Layer<T> for Option<T> {
    fn inherit(&mut self, outer: &Self) {
        if self.is_none() {
            self.clone_from(outer);
        }
    }

    fn settle(&self, default: T) -> T {
        self.clone().unwrap_or(default)
    }
}

/// A setting that holds in its own block only, not in those inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own<T>(pub Option<T>);

impl<T> Default for Own<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Layer<T> for Own<T> {
    fn inherit(&mut self, _: &Self) {}

    fn settle(&self, default: T) -> T {
        self.0.settle(default)
    }
}

/// Declares settings: `name: type = default;`, or with `, as Layer` behind the default where a block says more than a
/// value, or inheritance isn't the usual one (see [`Layer`]).
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $Settings:ident, set by $Layer:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr $(, as $layer:ty)?;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $Settings {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for $Settings {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        #[doc = concat!("What one block says of [`", stringify!($Settings), "`].")]
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $Layer {
            $($(#[$doc])* pub $field: $crate::settings::settings!(@layer $type $(, $layer)?),)+
        }

        impl $crate::Layer<$Settings> for $Layer {
            fn inherit(&mut self, outer: &Self) {
                $($crate::Layer::<$type>::inherit(&mut self.$field, &outer.$field);)+
            }

            fn settle(&self, default: $Settings) -> $Settings {
                $Settings { $($field: self.$field.settle(default.$field),)+ }
            }
        }
    };
    (@layer $type:ty) => { Option<$type> };
    (@layer $type:ty, $layer:ty) => { $layer };
}
pub(crate) use settings;

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes types for other crates")]
mod tests {
    use super::*;

    settings! {
        /// A group.
        pub struct Inner, set by InnerLayer {
            /// A list.
            list: Vec<u8> = vec![7];
        }
    }

    settings! {
        /// All kinds.
        pub struct Outer, set by OuterLayer {
            /// A value.
            value: u32 = 1;
            /// A value that may be missing.
            optional: Option<u32> = None;
            /// Not inherited.
            own: u32 = 2, as Own<u32>;
            /// A group with another default than its own.
            inner: Inner = Inner { list: vec![8] }, as InnerLayer;
        }
    }

    #[test]
    fn the_innermost_block_decides_and_defaults_fill_the_rest() {
        let outermost = OuterLayer {
            value: Some(10),
            optional: Some(Some(11)),
            own: Own(Some(12)),
            inner: InnerLayer { list: Some(vec![13, 14]) },
        };
        let mut inside = OuterLayer { value: Some(20), optional: Some(None), ..OuterLayer::default() };
        inside.inherit(&outermost);
        let expect = Outer { value: 20, optional: None, own: 2, inner: Inner { list: vec![13, 14] } };
        assert_eq!(inside.settle(Outer::default()), expect);
        assert_eq!(OuterLayer::default().settle(Outer::default()), Outer::default());
        assert_eq!(Outer::default().inner.list, [8]);
    }
}
