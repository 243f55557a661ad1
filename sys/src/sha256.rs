//! SHA-256 of four messages at once, with the processor's own instructions.
//!
//! One message cannot keep the SHA unit busy: each round waits for the one before. Four interleaved ones hash about
//! twice as many bytes in the same time (measured on an AMD EPYC with SHA-NI), and hash trees have plenty of equal
//! messages.

/// Messages hashed at a time. Three gain nearly as much, more than four run out of registers.
pub const LANES: usize = 4;
/// Bytes of a SHA-256 message block.
pub const BLOCK: usize = 64;

/// The hash state that every message starts from (FIPS 180-4, section 5.3.3).
pub const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Proof that this processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub struct Lanes(());

impl Lanes {
    /// The proof, where the processor has them.
    #[must_use]
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
        {
            return Some(Self(()));
        }
        None
    }

    /// Takes equally many whole blocks of each message into its state. Padding is the caller's.
    ///
    /// # Panics
    /// When the messages differ in length or end inside a block.
    #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "processor instructions"))]
    pub fn compress(self, states: &mut [[u32; 8]; LANES], messages: [&[u8]; LANES]) {
        let length = messages[0].len();
        assert!(length % BLOCK == 0, "whole blocks");
        assert!(messages.iter().all(|message| message.len() == length), "messages of one length");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `compress` requires sha, ssse3 and sse4.1: `self` only exists where `detect` found all three. It
        // reads `length` bytes of each message, asserted above to be there.
        unsafe {
            x86::compress(states, messages, length / BLOCK);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("`detect` gives no proof here: {states:?}");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
    };

    use super::{BLOCK, LANES};

    /// Round constants (FIPS 180-4, section 4.2.2).
    const K: [u32; 64] = [
        0x428a_2f98,
        0x7137_4491,
        0xb5c0_fbcf,
        0xe9b5_dba5,
        0x3956_c25b,
        0x59f1_11f1,
        0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98,
        0x1283_5b01,
        0x2431_85be,
        0x550c_7dc3,
        0x72be_5d74,
        0x80de_b1fe,
        0x9bdc_06a7,
        0xc19b_f174,
        0xe49b_69c1,
        0xefbe_4786,
        0x0fc1_9dc6,
        0x240c_a1cc,
        0x2de9_2c6f,
        0x4a74_84aa,
        0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152,
        0xa831_c66d,
        0xb003_27c8,
        0xbf59_7fc7,
        0xc6e0_0bf3,
        0xd5a7_9147,
        0x06ca_6351,
        0x1429_2967,
        0x27b7_0a85,
        0x2e1b_2138,
        0x4d2c_6dfc,
        0x5338_0d13,
        0x650a_7354,
        0x766a_0abb,
        0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1,
        0xa81a_664b,
        0xc24b_8b70,
        0xc76c_51a3,
        0xd192_e819,
        0xd699_0624,
        0xf40e_3585,
        0x106a_a070,
        0x19a4_c116,
        0x1e37_6c08,
        0x2748_774c,
        0x34b0_bcb5,
        0x391c_0cb3,
        0x4ed8_aa4a,
        0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee,
        0x78a5_636f,
        0x84c8_7814,
        0x8cc7_0208,
        0x90be_fffa,
        0xa450_6ceb,
        0xbef9_a3f7,
        0xc671_78f2,
    ];

    /// # Safety
    /// The processor has sha, ssse3 and sse4.1, and each message has `blocks` blocks.
    #[expect(unsafe_code, reason = "processor instructions")]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) unsafe fn compress(states: &mut [[u32; 8]; LANES], messages: [&[u8]; LANES], blocks: usize) {
        // SAFETY: the caller vouches for the instructions. Loads and stores need no alignment; they stay inside the
        // eight words of a state, the 64 constants (16 loads of 4), and the messages (`blocks` times 64 bytes).
        unsafe {
            let byte_order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
            let mut abef = [_mm_setzero_si128(); LANES];
            let mut cdgh = abef;
            for lane in 0..LANES {
                let state = states[lane].as_ptr().cast::<__m128i>();
                let cdab = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xb1);
                let efgh = _mm_shuffle_epi32(_mm_loadu_si128(state.add(1)), 0x1b);
                abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
                cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
            }
            for block in 0..blocks {
                let (abef_before, cdgh_before) = (abef, cdgh);
                let mut words = [[_mm_setzero_si128(); 4]; LANES];
                for lane in 0..LANES {
                    for (quarter, word) in words[lane].iter_mut().enumerate() {
                        let bytes = messages[lane].as_ptr().add(BLOCK * block + 16 * quarter);
                        *word = _mm_shuffle_epi8(_mm_loadu_si128(bytes.cast()), byte_order);
                    }
                }
                for four in 0..16 {
                    let constants = _mm_loadu_si128(K.as_ptr().add(4 * four).cast());
                    for lane in 0..LANES {
                        let sum = _mm_add_epi32(words[lane][four % 4], constants);
                        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
                        abef[lane] =
                            _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(sum, 0x0e));
                        if four < 12 {
                            let word = |ahead: usize| words[lane][(four + ahead) % 4];
                            let mixed = _mm_sha256msg1_epu32(word(0), word(1));
                            let mixed = _mm_add_epi32(mixed, _mm_alignr_epi8(word(3), word(2), 4));
                            words[lane][four % 4] = _mm_sha256msg2_epu32(mixed, word(3));
                        }
                    }
                }
                for lane in 0..LANES {
                    abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
                    cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
                }
            }
            for lane in 0..LANES {
                let feba = _mm_shuffle_epi32(abef[lane], 0x1b);
                let dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
                let state = states[lane].as_mut_ptr().cast::<__m128i>();
                _mm_storeu_si128(state, _mm_blend_epi16(feba, dchg, 0xf0));
                _mm_storeu_si128(state.add(1), _mm_alignr_epi8(dchg, feba, 8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_hashes_its_own_message() {
        let Some(lanes) = Lanes::detect() else {
            eprintln!("skipped: this processor has no SHA instructions");
            return;
        };
        // "abc" with its padding, and the empty message with its own: FIPS 180-4's examples.
        let (mut abc, mut empty) = ([0; BLOCK], [0; BLOCK]);
        abc[..4].copy_from_slice(b"abc\x80");
        abc[63] = 24;
        empty[0] = 0x80;
        let mut states = [INITIAL; LANES];
        lanes.compress(&mut states, [&abc, &empty, &abc, &empty]);
        assert_eq!(states[0][..2], [0xba78_16bf, 0x8f01_cfea]);
        assert_eq!(states[1][..2], [0xe3b0_c442, 0x98fc_1c14]);
        assert_eq!((states[0], states[1]), (states[2], states[3]));
    }

    #[test]
    #[should_panic(expected = "messages of one length")]
    fn messages_of_different_lengths_are_refused() {
        let Some(lanes) = Lanes::detect() else { panic!("messages of one length") };
        lanes.compress(&mut [INITIAL; LANES], [&[0; 64], &[0; 64], &[0; 64], &[0; 128]]);
    }
}
