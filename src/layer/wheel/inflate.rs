//! Raw deflate (RFC 1951) with the checks that splicing needs: a stream must end exactly where its entry says.
//!
//! A deflate stream is copied into a layer as it is. Bytes after its end would corrupt the layer, so an inflater has to
//! tell how much input a stream took. libdeflate's safe wrapper does not, hence the call to its C interface here.

use std::ptr::NonNull;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflate_sys as sys;

/// Why bytes are not the deflate stream that they should be.
pub type Fault = &'static str;

const BROKEN: Fault = "has broken deflate data";
const LONGER: Fault = "inflates to more than the size it declares";
const SHORTER: Fault = "inflates to less than the size it declares";
const TRAILING: Fault = "has bytes after the end of its deflate data";

/// Inflates whole buffers with libdeflate.
#[derive(Debug)]
pub struct Whole(NonNull<sys::libdeflate_decompressor>);

impl Whole {
    /// A decompressor for one thread.
    ///
    /// # Panics
    /// When no memory is left for it (some 12 KiB).
    #[allow(unsafe_code)]
    pub fn new() -> Self {
        // SAFETY: takes no arguments; a null result is handled.
        let made = unsafe { sys::libdeflate_alloc_decompressor() };
        Self(NonNull::new(made).expect("memory for a decompressor"))
    }

    /// Appends exactly `size` bytes to `out`, the content of exactly `raw`.
    #[allow(unsafe_code)]
    pub fn inflate(&mut self, raw: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.reserve(size);
        let (mut used, mut written) = (0, 0);
        let begin = out.len();
        let room = &mut out.spare_capacity_mut()[..size];
        // SAFETY: the decompressor is alive and used by this thread alone; input and output are slices whose lengths
        // are passed; libdeflate writes no more than it is told to and reports how much that was.
        let result = unsafe {
            sys::libdeflate_deflate_decompress_ex(
                self.0.as_ptr(),
                raw.as_ptr().cast(),
                raw.len(),
                room.as_mut_ptr().cast(),
                size,
                &raw mut used,
                &raw mut written,
            )
        };
        if result == sys::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE {
            return Err(LONGER);
        }
        if result != sys::libdeflate_result_LIBDEFLATE_SUCCESS {
            return Err(BROKEN);
        }
        if written != size {
            return Err(SHORTER);
        }
        if used != raw.len() {
            return Err(TRAILING);
        }
        // SAFETY: libdeflate initialised `written == size` bytes of the spare capacity.
        unsafe { out.set_len(begin + size) };
        Ok(())
    }
}

impl Default for Whole {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Whole {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: made by `libdeflate_alloc_decompressor`, freed once.
        unsafe { sys::libdeflate_free_decompressor(self.0.as_ptr()) };
    }
}

/// Inflates a stream that comes in pieces, for entries too large to hold.
#[derive(Debug)]
pub struct Streaming {
    inner: Decompress,
    left: u64,
    ended: bool,
}

impl Streaming {
    /// For a stream of `size` bytes of content.
    pub fn new(size: u64) -> Self {
        Self {
            inner: Decompress::new(false),
            left: size,
            ended: false,
        }
    }

    /// Inflates all of `raw`, handing pieces of at most `piece` bytes to `emit`.
    pub fn feed<E: From<Fault>>(
        &mut self,
        mut raw: &[u8],
        piece: usize,
        mut emit: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.ended {
                return if raw.is_empty() {
                    Ok(())
                } else {
                    Err(TRAILING.into())
                };
            }
            let mut out = Vec::with_capacity(piece);
            let before = self.inner.total_in();
            let status = self
                .inner
                .decompress_vec(raw, &mut out, FlushDecompress::None)
                .map_err(|_| BROKEN)?;
            raw = &raw[(self.inner.total_in() - before) as usize..];
            self.left = self.left.checked_sub(out.len() as u64).ok_or(LONGER)?;
            let full = out.len() == piece;
            if !out.is_empty() {
                emit(out)?;
            }
            match status {
                Status::StreamEnd => self.ended = true,
                _ if raw.is_empty() && !full => return Ok(()),
                _ => {}
            }
        }
    }

    /// The stream must be over, and complete.
    pub fn finish(&self) -> Result<(), Fault> {
        match (self.ended, self.left) {
            (true, 0) => Ok(()),
            (true, _) => Err(SHORTER),
            (false, _) => Err("has deflate data without an end"),
        }
    }
}
