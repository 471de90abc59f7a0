//! The kernels that measure what a device can do at most do what they claim to do.

use latent_attention::device::Ceiling;
use ptx_sim::meter::Path;

use crate::device;

#[test]
fn a_copy_copies_and_moves_each_byte_once() {
    let device = device();
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
fn the_products_are_computed_and_counted() {
    let device = device();
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
    let device = device();
    let ceiling = Ceiling::new(&device).unwrap();
    let (from, mut to) = (device.zeros(4).unwrap(), device.zeros(2).unwrap());
    let stream = device.stream().unwrap();
    let message = ceiling.copy(&stream, &from.view(), &mut to.view_mut()).unwrap_err().to_string();
    assert_eq!(message, "copy: expected [elements 4] = 4 elements, got 2 elements");
    let message = ceiling.copy(&stream, &from.view().slice(1..3).unwrap(), &mut to.view_mut()).unwrap_err().to_string();
    assert!(message.starts_with("from: expected a multiple of 16 bytes, got address 0x"), "{message}");
    let mut out = device.zeros(1).unwrap();
    assert!(ceiling.mma(&stream, 1, &mut out.view_mut()).is_err());
}
