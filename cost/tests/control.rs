//! Control fields, against words of `cost/tests/data/copy_pages.sass` and `decode_sm80` that were decoded by hand: bits 41
//! and up of the upper word.

use latent_attention_cost::sass::control::Control;

/// `stall`, `yields`, `write`, `read`, `wait`, `reuse`.
fn control(stall: u8, yields: bool, write: Option<u8>, read: Option<u8>, wait: u8, reuse: u8) -> Control {
    Control { stall, yields, write, read, wait, reuse }
}

#[test]
fn a_result_that_takes_unknown_time_has_a_scoreboard() {
    // S2R: 0xe2e00 >> 9 = 0b0_000000_111_000_1_0111: write 0, stall 7.
    assert_eq!(Control::decode(0x000e_2e00_0000_2500), control(7, false, Some(0), None, 0, 0));
    // LDG: 0b0_000000_111_010_1_0010: write 2, stall 2.
    assert_eq!(Control::decode(0x000e_a400_0c1e_9b00), control(2, false, Some(2), None, 0, 0));
}

#[test]
fn what_needs_it_waits_for_the_scoreboard() {
    // ISETP behind that LDG: 0b0_000100_111_111_0_0100: waits for 2, yields, stall 4.
    assert_eq!(Control::decode(0x004f_c800_0bf0_6070), control(4, true, None, None, 0b100, 0));
    // IMAD.WIDE behind S2R: waits for 0, yields, stall 6.
    assert_eq!(Control::decode(0x001f_cc00_078e_0002), control(6, true, None, None, 0b1, 0));
}

#[test]
fn a_store_tells_when_it_has_read_its_operands() {
    // STG: 0b0_000100_000_111_1_0100: waits for 2, read 0, stall 4.
    assert_eq!(Control::decode(0x0041_e800_0c10_1d08), control(4, false, None, Some(0), 0b100, 0));
}

#[test]
fn operands_may_stay_in_the_register_cache() {
    // IADD3 R25, R0.reuse: bit 122.
    assert_eq!(Control::decode(0x040f_e200_07ff_e0ff), control(1, false, None, None, 0, 0b1));
    // HMMA R96, R80, R106.reuse, R96: bit 123, the second operand's; waits for 2, stall 6.
    assert_eq!(Control::decode(0x084f_ec00_0004_1860), control(6, false, None, None, 0b100, 0b10));
}

#[test]
fn scoreboards_are_those_whose_bit_is_set() {
    let control = control(1, false, None, None, 0b10_0101, 0);
    assert_eq!(control.waits().collect::<Vec<_>>(), [0, 2, 5]);
}
