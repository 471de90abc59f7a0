//! What holds for an operation whoever computes it: the reference on the host, or kernels on a device.
//!
//! Each property is a function of a [`Backend`](backend::Backend); [`hold!`] makes a test of each.

pub mod absorb;
pub mod backend;
pub mod combine;
pub mod copy_pages;
pub mod decode;
pub mod gather;
pub mod rope_append;
pub mod up_project;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult, TestRunner};

use self::backend::Backend;

/// `hold!(name: backend)` makes tests `name::<operation>::<property>` of all properties, each with a new backend, and
/// `hold!(decode name: backend)` of those of `decode` alone.
macro_rules! hold {
    ($name:ident: $backend:expr) => {
        mod $name {
            crate::properties::hold! {
                @tests $backend;
                absorb:
                    absorbing_moves_the_up_projection_across_the_dot_product,
                    expanding_a_mean_is_the_mean_of_expanded_values;
                combine:
                    merging_is_associative_and_commutative,
                    one_partial_is_itself_where_it_saw_anything;
                copy_pages: copied_tokens_are_those_of_the_source_and_all_others_stay;
                gather: tokens_are_the_latents_and_keys_of_their_slots;
                rope_append: tokens_can_come_in_any_order_and_in_any_number_of_steps;
                up_project: keys_and_values_are_products_with_the_stored_latent;
            }
            crate::properties::hold!(@decode $backend);
        }
    };
    (decode $name:ident: $backend:expr) => {
        mod $name {
            crate::properties::hold!(@decode $backend);
        }
    };
    (@decode $backend:expr) => {
        crate::properties::hold! {
            @tests $backend;
            decode:
                poison_in_unused_slots_and_table_entries_never_reaches_a_result,
                where_the_pages_lie_does_not_matter;
        }
    };
    (@tests $backend:expr; $($operation:ident: $($property:ident),+;)+) => {
        $(mod $operation {
            use crate::*;
            $(#[test]
            fn $property() {
                crate::properties::$operation::$property(&$backend);
            })+
        })+
    };
}
pub(crate) use hold;

/// Holds a property against random cases. Those that failed once are kept beside the property's source, and come first.
#[track_caller]
fn for_all<S: Strategy>(backend: &dyn Backend, cases: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let mut config = ProptestConfig::default();
    config.cases = config.cases.min(backend.cases());
    config.source_file = Some(std::panic::Location::caller().file());
    config.failure_persistence = Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")));
    if let Err(error) = TestRunner::new(config).run(&cases, property) {
        panic!("{error}");
    }
}
