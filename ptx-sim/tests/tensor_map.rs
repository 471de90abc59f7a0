//! Tensor maps are made of what the driver takes, and everything else is refused by the argument's name.

use proptest::prelude::*;
use ptx_sim::tensor_map::{DataType, Interleave, L2Promotion, OobFill, Swizzle, TensorMapError, Tiled};

/// A matrix of 100 rows of 256 f16, 640 bytes apart, in boxes of 8 rows of 128 bytes.
fn matrix() -> Tiled {
    Tiled::new(DataType::F16, 0x7000_0000_0000, &[256, 100], &[640], &[64, 8])
}

/// The argument that is refused as the driver refuses it, and why.
fn invalid(tiled: &Tiled) -> (String, String) {
    match tiled.encode() {
        Err(TensorMapError::Invalid { argument, why }) => (argument, why),
        other => panic!("{tiled:?}: {other:?}"),
    }
}

/// Asserts that one argument of the matrix, as `change` leaves it, is refused by its name.
fn refused(argument: &str, change: impl Fn(&mut Tiled)) {
    let mut tiled = matrix();
    change(&mut tiled);
    assert_eq!(invalid(&tiled).0, argument, "{tiled:?}");
}

/// Asserts that the matrix, as `change` leaves it, has a tensor map.
fn taken(change: impl Fn(&mut Tiled)) {
    let mut tiled = matrix();
    change(&mut tiled);
    assert!(tiled.encode().is_ok(), "{tiled:?}: {:?}", tiled.encode());
}

#[test]
fn ranks_from_one_to_five_are_taken() {
    for rank in 1..=5 {
        let (dims, strides) = (vec![64; rank], (1..rank).map(|i| 1024 << i).collect::<Vec<u64>>());
        let tiled = Tiled::new(DataType::F32, 0x1000, &dims, &strides, &vec![4; rank]);
        assert!(tiled.encode().is_ok(), "{rank}");
    }
    for rank in [0, 6] {
        let strides = vec![1024; usize::saturating_sub(rank, 1)];
        let tiled = Tiled::new(DataType::F32, 0x1000, &vec![64; rank], &strides, &vec![4; rank]);
        assert_eq!(invalid(&tiled).0, "tensorRank", "{rank}");
    }
}

#[test]
fn lists_have_a_value_for_each_dimension() {
    refused("globalStrides", |t| t.global_strides.push(1 << 20));
    refused("globalStrides", |t| t.global_strides.clear());
    refused("boxDim", |t| t.box_dim.push(1));
    refused("elementStrides", |t| t.element_strides.truncate(1));
}

#[test]
fn the_address_is_a_multiple_of_sixteen_bytes() {
    taken(|t| t.global_address += 16);
    refused("globalAddress", |t| t.global_address += 8);
    refused("globalAddress", |t| t.global_address += 1);
}

#[test]
fn dimensions_reach_from_one_to_two_to_the_32() {
    taken(|t| t.global_dim = vec![1, 1 << 32]);
    refused("globalDim[0]", |t| t.global_dim[0] = 0);
    refused("globalDim[1]", |t| t.global_dim[1] = 0);
    refused("globalDim[1]", |t| t.global_dim[1] = (1 << 32) + 1);
}

#[test]
fn strides_are_multiples_of_sixteen_below_two_to_the_40() {
    taken(|t| t.global_strides = vec![(1 << 40) - 16]);
    refused("globalStrides[0]", |t| t.global_strides = vec![1 << 40]);
    refused("globalStrides[0]", |t| t.global_strides = vec![648]);
    let mut cube = Tiled::new(DataType::U8, 0, &[16, 4, 4], &[16, 64], &[16, 4, 4]);
    assert!(cube.encode().is_ok());
    cube.global_strides[1] = 65;
    assert_eq!(invalid(&cube), ("globalStrides[1]".into(), "65 is not a multiple of 16 bytes".into()));
}

#[test]
fn box_dimensions_reach_from_one_to_256() {
    taken(|t| t.box_dim = vec![256, 256]);
    refused("boxDim[1]", |t| t.box_dim[1] = 0);
    refused("boxDim[0]", |t| t.box_dim[0] = 0);
    refused("boxDim[1]", |t| t.box_dim[1] = 257);
}

#[test]
fn rows_of_a_box_are_multiples_of_sixteen_bytes() {
    for ty in DataType::ALL {
        let Some(size) = ty.size() else { continue };
        let fits = 16 / size as u32;
        taken(|t| (t.data_type, t.box_dim[0]) = (ty, fits));
        taken(|t| (t.data_type, t.box_dim[0]) = (ty, 5 * fits));
        refused("boxDim[0]", |t| (t.data_type, t.box_dim[0]) = (ty, fits + 1));
    }
}

#[test]
fn element_strides_reach_from_one_to_eight() {
    taken(|t| t.element_strides = vec![8, 8]);
    refused("elementStrides[1]", |t| t.element_strides[1] = 0);
    refused("elementStrides[0]", |t| t.element_strides[0] = 9);
    refused("elementStrides[1]", |t| t.element_strides[1] = 9);
}

#[test]
fn a_swizzled_row_is_as_long_as_the_swizzle_reaches() {
    for (swizzle, span) in [(Swizzle::B32, 32), (Swizzle::B64, 64), (Swizzle::B128, 128)] {
        taken(|t| (t.swizzle, t.box_dim[0]) = (swizzle, span / 2));
        refused("boxDim[0]", |t| (t.swizzle, t.box_dim[0]) = (swizzle, span / 2 + 8));
        // The driver takes shorter rows, and nothing says where they lie.
        let mut short = matrix().with_swizzle(swizzle);
        short.box_dim[0] = span / 2 - 8;
        let error = short.encode().unwrap_err();
        assert!(matches!(&error, TensorMapError::Unsupported { argument, .. } if argument == "boxDim[0]"), "{error}");
    }
}

#[test]
fn nans_fill_only_tensors_of_floats() {
    for ty in DataType::ALL.into_iter().filter(|ty| ty.size().is_some()) {
        let tiled = Tiled { data_type: ty, ..matrix() }.with_oob_fill(OobFill::Nan);
        if ty.name().contains("FLOAT") {
            assert!(tiled.encode().is_ok(), "{ty:?}");
        } else {
            assert_eq!(invalid(&tiled).0, "oobFill", "{ty:?}");
        }
    }
}

#[test]
fn what_only_the_driver_knows_is_refused_by_name() {
    let unsupported = |tiled: Tiled| match tiled.encode() {
        Err(error @ TensorMapError::Unsupported { .. }) => error.to_string(),
        other => panic!("{tiled:?}: {other:?}"),
    };
    for (ty, name) in [
        (DataType::U4x16Align8, "16U4_ALIGN8B"),
        (DataType::U4x16Align16, "16U4_ALIGN16B"),
        (DataType::U6x16Align16, "16U6_ALIGN16B"),
    ] {
        let message = unsupported(Tiled { data_type: ty, ..matrix() });
        let wanted = format!("`tensorDataType`: CU_TENSOR_MAP_DATA_TYPE_{name} is not supported by the simulator");
        assert_eq!(message, wanted);
    }
    for (interleave, name) in [(Interleave::B16, "INTERLEAVE_16B"), (Interleave::B32, "INTERLEAVE_32B")] {
        assert!(unsupported(matrix().with_interleave(interleave)).contains(name));
    }
    for (swizzle, name) in [
        (Swizzle::B128Atom32, "128B_ATOM_32B "),
        (Swizzle::B128Atom32Flip8, "128B_ATOM_32B_FLIP_8B "),
        (Swizzle::B128Atom64, "128B_ATOM_64B "),
    ] {
        assert!(unsupported(matrix().with_swizzle(swizzle)).contains(name));
    }
}

/// `CUtensorMapDataType` and its companions of cuda.h number their values from 0.
#[test]
fn enumerations_have_the_numbers_of_the_driver() {
    assert!(DataType::ALL.iter().zip(0..).all(|(ty, number)| *ty as u32 == number));
    assert_eq!((DataType::F16 as u32, DataType::Bf16 as u32, DataType::U6x16Align16 as u32), (6, 9, 15));
    assert_eq!((Interleave::B32 as u32, Swizzle::B128 as u32, Swizzle::B128Atom64 as u32), (2, 3, 6));
    assert_eq!((L2Promotion::B256 as u32, OobFill::Nan as u32), (3, 1));
}

#[test]
fn maps_that_differ_in_an_argument_differ() {
    let variants = [
        matrix(),
        Tiled { data_type: DataType::Bf16, ..matrix() },
        Tiled { global_address: 0x7000_0000_0010, ..matrix() },
        Tiled { global_dim: vec![256, 101], ..matrix() },
        Tiled { global_strides: vec![656], ..matrix() },
        Tiled { box_dim: vec![64, 9], ..matrix() },
        matrix().with_element_strides(&[1, 2]),
        matrix().with_swizzle(Swizzle::B128),
        matrix().with_oob_fill(OobFill::Nan),
        matrix().with_l2_promotion(L2Promotion::B128),
    ];
    let maps: Vec<_> = variants.iter().map(|tiled| *tiled.encode().unwrap().bytes()).collect();
    for (i, map) in maps.iter().enumerate() {
        assert_eq!(maps.iter().filter(|other| *other == map).count(), 1, "{:?}", variants[i]);
    }
}

fn any_tiled() -> impl Strategy<Value = Tiled> {
    let values = |most: u64| prop_oneof![0..=most, Just(most), Just(most + 1), any::<u64>()];
    let narrow = |most: u32| prop_oneof![0..=most, Just(most + 1), any::<u32>()];
    let lists = (0..7usize).prop_flat_map(move |rank| {
        (
            prop::collection::vec(values(1 << 32), rank),
            prop::collection::vec(values(1 << 36).prop_map(|stride| stride.wrapping_mul(8)), rank.saturating_sub(1)),
            prop::collection::vec(narrow(256), rank),
            prop::collection::vec(narrow(8), rank),
        )
    });
    let choice = (0..16usize, 0..3usize, 0..7usize, any::<bool>());
    (lists, choice, any::<u64>()).prop_map(
        |((dims, strides, sizes, steps), (ty, interleave, swizzle, nan), address)| {
            let interleaves = [Interleave::None, Interleave::B16, Interleave::B32];
            let swizzles = [
                Swizzle::None,
                Swizzle::B32,
                Swizzle::B64,
                Swizzle::B128,
                Swizzle::B128Atom32,
                Swizzle::B128Atom32Flip8,
                Swizzle::B128Atom64,
            ];
            Tiled::new(DataType::ALL[ty], address.wrapping_mul(8), &dims, &strides, &sizes)
                .with_element_strides(&steps)
                .with_interleave(interleaves[interleave])
                .with_swizzle(swizzles[swizzle])
                .with_oob_fill(if nan { OobFill::Nan } else { OobFill::Zeros })
        },
    )
}

/// The documented requirements, all of them at once.
fn driver_takes(t: &Tiled) -> bool {
    let size = t.data_type.size().unwrap() as u64;
    let row = t.box_dim.first().map_or(0, |&dim| u64::from(dim) * size);
    let span = [u64::MAX, 32, 64, 128, 128, 128, 128][t.swizzle as usize];
    (1..=5).contains(&t.global_dim.len())
        && t.global_address.is_multiple_of(16)
        && t.global_dim.iter().all(|&dim| dim > 0 && dim <= 1 << 32)
        && t.global_strides.iter().all(|&stride| stride.is_multiple_of(16) && stride < 1 << 40)
        && t.box_dim.iter().all(|&dim| dim > 0 && dim <= 256)
        && t.element_strides.iter().all(|&step| step > 0 && step <= 8)
        && row.is_multiple_of(16)
        && row <= span
        && (t.oob_fill == OobFill::Zeros || t.data_type.is_float())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the arguments are, there is a map or an error, and it is the one that the documentation asks for.
    #[test]
    fn a_map_is_made_if_the_driver_makes_it_and_the_simulator_runs_it(tiled in any_tiled()) {
        match tiled.encode() {
            Ok(_) => prop_assert!(driver_takes(&tiled), "{tiled:?}"),
            Err(TensorMapError::Invalid { .. }) => prop_assert!(!driver_takes(&tiled), "{tiled:?}"),
            Err(_) => {}
        }
    }
}
