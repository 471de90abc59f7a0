//! `copy_pages`: what it refuses.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::reference::copy_pages;

#[test]
fn copies_that_make_no_sense_are_named_and_write_nothing() {
    let geometry = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 8).unwrap();
    let mut cache = PagedCache::new(layout, 4).unwrap();
    for (i, byte) in cache.bytes_mut().iter_mut().enumerate() {
        *byte = i as u8 ^ (i >> 8) as u8;
    }
    let before = cache.clone();
    for (copies, message) in [
        (vec![[0, 1], [2, 4]], "destination of copy [1] = 4 is outside of 0..4 pages"),
        (vec![[-1, 1]], "source of copy [0] = -1 is outside of 0..4 pages"),
        (vec![[0, 1], [2, 1]], "page 1: is the destination of one copy and a page of another"),
        (vec![[0, 1], [1, 2]], "page 1: is the destination of one copy and a page of another"),
    ] {
        assert_eq!(copy_pages(&copies, &mut cache).unwrap_err().to_string(), message);
        assert!(cache.bytes() == before.bytes());
    }
    // One source may serve several copies, and a page may be copied to itself.
    copy_pages(&[[0, 1], [0, 2], [3, 3]], &mut cache).unwrap();
    let page =
        |cache: &PagedCache, page: usize| cache.bytes()[page * layout.page_bytes()..][..layout.page_bytes()].to_vec();
    assert!([0, 1, 2].map(|copy| page(&cache, copy)) == [0, 0, 0].map(|source| page(&before, source)));
    assert!(page(&cache, 3) == page(&before, 3));
}
