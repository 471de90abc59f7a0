//! The kernels that measure what a device can do at most do what they claim to do.

use latent_attention::device::{Ceiling, CpuConfig, CpuLevel, Device};
use ptx_sim::meter::Path;

use crate::decode::hopper_like;

#[test]
fn a_copy_copies_and_moves_each_byte_once() {
    let device = crate::device();
    let ceiling = Ceiling::new(&device).unwrap();
    for len in [0, 2, 256, 8 * 4 * 256 * 4 + 6] {
        let numbers: Vec<u64> = (0..len as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let from = device.upload(&numbers).unwrap();
        let mut to = device.zeros(len).unwrap();
        ceiling.copy(&device.stream().unwrap(), &from.view(), &mut to.view_mut()).unwrap();
        assert_eq!(to.to_vec().unwrap(), numbers);
        if let Some(counted) = device.take_counts().remove("ceiling_copy") {
            let bytes = |path| counted.meter.traffic.get(&path).map_or(0, |traffic| traffic.bytes);
            assert_eq!((bytes(Path::GlobalRead), bytes(Path::GlobalWrite)), (8 * len as u64, 8 * len as u64));
        }
    }
}

#[test]
fn a_read_reads_each_byte_once_and_all_of_them() {
    let device = crate::device();
    let ceiling = Ceiling::new(&device).unwrap();
    let written = 8 * ceiling.read_elements() as u64;
    for len in [0, 2, 256, 8 * 8 * 256 * 8 + 6] {
        let numbers: Vec<u64> = (0..len as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let from = device.upload(&numbers).unwrap();
        let mut out = device.zeros(ceiling.read_elements()).unwrap();
        ceiling.read(&device.stream().unwrap(), &from.view(), &mut out.view_mut()).unwrap();
        let all = |numbers: &[u64]| numbers.iter().fold(0, |all, number| all ^ number);
        assert_eq!(all(&out.to_vec().unwrap()), all(&numbers));
        if let Some(counted) = device.take_counts().remove("ceiling_read") {
            let bytes = |path| counted.meter.traffic.get(&path).map_or(0, |traffic| traffic.bytes);
            assert_eq!((bytes(Path::GlobalRead), bytes(Path::GlobalWrite)), (8 * len as u64, written));
        }
    }
}

#[test]
fn hoppers_products_are_computed_and_counted_and_there_are_none_elsewhere() {
    let device = crate::device();
    let ask = |device: &Device| {
        let ceiling = Ceiling::new(device).unwrap();
        let mut out = device.zeros(ceiling.mma_elements()).unwrap();
        let flops = ceiling.wgmma(&device.stream().unwrap(), 2, &mut out.view_mut()).unwrap();
        (flops, out.to_vec().unwrap())
    };
    let Some(hopper) = hopper_like(&device) else {
        let (flops, out) = ask(&device);
        return assert!(flops.is_none() && out.iter().all(|&sum| sum == 0.0));
    };
    let (flops, out) = ask(&hopper);
    assert!(out.iter().all(|&sum| sum == 16384.0 * 2.0));
    if let Some(counted) = hopper.take_counts().remove("ceiling_wgmma") {
        let products: u64 = counted.meter.mma.values().sum();
        // Counted once per warp, each of which does a quarter of a product.
        assert_eq!(products * 2 * 16 * 64 * 16, flops.unwrap());
    }
}

#[test]
fn products_of_8_bit_integers_are_those_of_levels_that_have_them() {
    for level in CpuLevel::available() {
        let device = Device::cpu_with(CpuConfig::default().with_level(level)).unwrap();
        let ceiling = Ceiling::new(&device).unwrap();
        let mut out = device.zeros(ceiling.mma_elements()).unwrap();
        let flops = ceiling.int8(&device.stream().unwrap(), 2, &mut out.view_mut()).unwrap();
        let has_int8 = matches!(level, CpuLevel::Avx512Vnni | CpuLevel::Amx | CpuLevel::NeonDotprod);
        assert_eq!(flops.is_some(), has_int8, "{level}");
        let sum = if has_int8 { 16384.0 * 2.0 } else { 0.0 };
        assert!(out.to_vec().unwrap().iter().all(|&got| got == sum), "{level}");
        // Products and sums.
        assert_eq!(flops.unwrap_or_default(), 2 * (sum * ceiling.mma_elements() as f32) as u64, "{level}");
    }
}

#[test]
fn the_products_are_computed_and_counted() {
    let device = crate::device();
    let ceiling = Ceiling::new(&device).unwrap();
    let mut out = device.zeros(ceiling.mma_elements()).unwrap();
    let flops = ceiling.mma(&device.stream().unwrap(), 3, &mut out.view_mut()).unwrap();
    assert!(out.to_vec().unwrap().iter().all(|&sum| sum == 512.0 * 3.0));
    if let Some(counted) = device.take_counts().remove("ceiling_mma") {
        let products: u64 = counted.meter.mma.values().sum();
        assert_eq!(products * 2 * 16 * 8 * 16, flops);
    }
}

#[test]
fn lengths_and_addresses_that_do_not_fit_are_refused() {
    let device = crate::device();
    let ceiling = Ceiling::new(&device).unwrap();
    let (from, mut to) = (device.zeros(4).unwrap(), device.zeros(2).unwrap());
    let stream = device.stream().unwrap();
    let message = ceiling.copy(&stream, &from.view(), &mut to.view_mut()).unwrap_err().to_string();
    assert_eq!(message, "copy: expected [elements 4] = 4 elements, got 2 elements");
    let message = ceiling.copy(&stream, &from.view().slice(1..3).unwrap(), &mut to.view_mut()).unwrap_err().to_string();
    assert!(message.starts_with("from: expected a multiple of 16 bytes, got address 0x"), "{message}");
    let mut out = device.zeros(1).unwrap();
    assert!(ceiling.mma(&stream, 1, &mut out.view_mut()).is_err());
    let message = ceiling.read(&stream, &from.view(), &mut to.view_mut()).unwrap_err().to_string();
    assert!(message.starts_with("out: expected [elements "), "{message}");
}
