//! `copy_pages` equals the reference to the byte.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::device::{Device, Simulation};
use latent_attention::ops::{CopyPages, CopyPagesArgs, CopyPagesConfig, DeviceCache};
use latent_attention::reference;
use latent_attention::sys::{COPY_PAGES_BYTES, COPY_PAGES_THREADS, CopyPagesParams};
use proptest::prelude::*;
use ptx_sim::meter::Path;
use rand::{Rng, RngExt};

use crate::common::{formats, geometry, page_size, rng};
use crate::properties::copy_pages::random_copies;
use crate::{PTX, device, simulate, with_key_norm};

/// A cache of random bytes.
fn random_cache(rng: &mut impl Rng, layout: CacheLayout, pages: usize) -> PagedCache {
    let mut cache = PagedCache::new(layout, pages).unwrap();
    rng.fill(cache.bytes_mut());
    cache
}

/// The cache after the copies, and how many were refused.
fn run(device: &Device, cache: &PagedCache, copies: &[[i32; 2]]) -> (PagedCache, u64) {
    let operation = CopyPages::new(device, CopyPagesConfig::new(*cache.layout())).unwrap();
    let mut on_device = DeviceCache::upload(device, cache).unwrap();
    let ids = device.upload(copies.as_flattened()).unwrap();
    let mut counters = device.zeros::<u64>(1).unwrap();
    let args = CopyPagesArgs { cache: on_device.view_mut(), copies: ids.view(), counters: Some(counters.view_mut()) };
    operation.run(&device.stream().unwrap(), args).unwrap();
    (on_device.download().unwrap(), counters.to_vec().unwrap()[0])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in with_key_norm(geometry()),
        format in prop::sample::select(formats()),
        page_size in page_size(),
        pages in 1usize..9,
        arch in 0usize..2,
    ) {
        let mut rng = rng(seed);
        let cache = random_cache(&mut rng, CacheLayout::new(&geometry, format, page_size).unwrap(), pages);
        let copies = random_copies(&mut rng, pages);
        let (got, refused) = run(&simulate(Simulation::default().with_arch(PTX[arch])), &cache, &copies);
        let mut want = cache;
        reference::copy_pages(&copies, &mut want).unwrap();
        prop_assert!(got.bytes() == want.bytes());
        prop_assert_eq!(refused, 0);
    }
}

/// Pages of several parts, the last of which is not full.
fn large_cache() -> PagedCache {
    let geometry = Geometry::named("llama2-7b-d16").unwrap();
    let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 64).unwrap();
    let part = COPY_PAGES_BYTES as usize;
    assert!(layout.page_bytes() > 2 * part && !layout.page_bytes().is_multiple_of(part));
    random_cache(&mut rng(3), layout, 6)
}

#[test]
fn a_page_of_several_parts_arrives_whole() {
    let cache = large_cache();
    let copies = [[1, 4], [1, 0], [5, 5], [2, 3]];
    let (got, refused) = run(&device(), &cache, &copies);
    let mut want = cache;
    reference::copy_pages(&copies, &mut want).unwrap();
    assert!(got.bytes() == want.bytes());
    assert_eq!(refused, 0);
}

#[test]
fn copies_of_pages_that_are_not_there_are_counted_and_write_nothing() {
    let cache = large_cache();
    let wild = [[-1, 0], [0, -1], [6, 1], [1, 6], [i32::MIN, 2], [2_147_480_000, i32::MAX], [2, 3]];
    let (got, refused) = run(&device(), &cache, &wild);
    let mut want = cache;
    reference::copy_pages(&wild[6..], &mut want).unwrap();
    assert!(got.bytes() == want.bytes());
    assert_eq!(refused, 6);
}

#[test]
fn no_copies_are_no_launch() {
    let cache = large_cache();
    let (got, refused) = run(&device(), &cache, &[]);
    assert!(got.bytes() == cache.bytes());
    assert_eq!(refused, 0);
}

#[test]
fn each_byte_is_read_once_and_written_once() {
    let (cache, device) = (large_cache(), device());
    run(&device, &cache, &[[1, 4], [1, 0]]);
    let Some(counted) = device.take_counts().remove("copy_pages") else { return };
    let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
    let page_bytes = cache.layout().page_bytes();
    // Beside the pages, every thread of a part reads its copy's two ids.
    let ids = page_bytes.div_ceil(COPY_PAGES_BYTES as usize) * COPY_PAGES_THREADS as usize * 8;
    assert_eq!(traffic(Path::GlobalRead).bytes, 2 * (page_bytes + ids) as u64);
    let written = traffic(Path::GlobalWrite);
    assert_eq!(written.bytes, 2 * page_bytes as u64);
    assert_eq!(written.sectors, written.bytes / 32, "whole sectors");
    assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let (device, cache) = (device(), large_cache());
    let operation = CopyPages::new(&device, CopyPagesConfig::new(*cache.layout())).unwrap();
    let mut on_device = DeviceCache::upload(&device, &cache).unwrap();
    let (ids, stream) = (device.upload(&[1, 2, 3]).unwrap(), device.stream().unwrap());
    let mut counters = device.zeros::<u64>(2).unwrap();
    let mut refused = |copies, counters| {
        let args = CopyPagesArgs { cache: on_device.view_mut(), copies, counters };
        operation.run(&stream, args).unwrap_err().to_string()
    };
    let message = refused(ids.view(), None);
    assert_eq!(message, "copies: expected [copies 1, source and destination 2] = 2 elements, got 3 elements");
    let message = refused(ids.view().slice(1..).unwrap(), None);
    assert!(message.starts_with("copies: expected a multiple of 8 bytes, got address"), "{message}");
    let message = refused(ids.view().slice(..2).unwrap(), Some(counters.view_mut()));
    assert_eq!(message, "counters: expected [refused 1] = 1 elements, got 2 elements");
    let elsewhere = Device::simulated().upload(&[1, 2]).unwrap();
    assert!(refused(elsewhere.view(), None).starts_with("copies: is on device `ptx-sim`"));
    // A cache of another layout, and one on another device.
    let other = CacheLayout::new(&Geometry::named("llama2-7b-d16").unwrap(), CacheFormat::BF16, 64).unwrap();
    let on_elsewhere = Device::simulated();
    for (device, layout, expected) in [
        (&device, other, "cache: the operation was made for"),
        (&on_elsewhere, *cache.layout(), "cache: is on device `ptx-sim`"),
    ] {
        let mut wrong = DeviceCache::new(device, layout, 3).unwrap();
        let copies = ids.view().slice(..2).unwrap();
        let args = CopyPagesArgs { cache: wrong.view_mut(), copies, counters: None };
        let message = operation.run(&stream, args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    let params = CopyPagesParams::default();
    // SAFETY: without copies there is nothing to launch.
    unsafe { operation.launch(&stream, &params) }.unwrap();
}
