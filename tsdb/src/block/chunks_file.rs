//! The files `chunks/000001` and up of a block.
//!
//! A file is a header (magic number, version, three zeros), then chunks without gaps: length of the
//! data as uvarint, encoding in one byte, data, crc over encoding and data. A chunk's reference is
//! the index of its file, from 0, and the offset of its length. Format: prometheus/prometheus
//! `tsdb/chunks/chunks.go`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{index_reader::ChunkMeta, read_ahead::ReadAhead};
use crate::{
    Error, Result,
    chunkenc::Encoding,
    crc::{crc32c, crc32c_append},
    fs::{Fs, ReadFile, WriteFile},
    query::Chunk,
    types::BlockChunkRef,
    varint::{Decoder, put_uvarint},
};

/// Name of the directory in the block's directory.
pub const CHUNKS_DIR: &str = "chunks";

/// Longest file that is written: 512 MiB.
pub const CHUNK_FILE_BYTES_MAX: u64 = 512 << 20;

const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
const CRC_LEN: usize = 4;
/// Longest length field, by which upstream decides when a file is full.
const LEN_FIELD_MAX: u64 = 5;

/// Bytes collected before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Read at first for a chunk: most are shorter.
const CHUNK_BYTES_GUESS: usize = 1100;

impl BlockChunkRef {
    fn in_file(file_index: usize, offset: u64) -> Option<Self> {
        let file_index = u32::try_from(file_index).ok()?;
        let offset = u32::try_from(offset).ok()?;
        Some(Self(u64::from(file_index) << 32 | u64::from(offset)))
    }

    /// Index of the file among those of the block, from 0; its name is one more.
    pub fn file_index(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// Offset in bytes of the chunk's length field.
    pub fn offset(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }
}

fn file_name(index: usize) -> String {
    format!("{:06}", index + 1)
}

/// Writes the chunk files of a new block.
#[derive(Debug)]
pub struct ChunkFilesWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    bytes_max: u64,
    /// Files begun, the open one too.
    files: usize,
    open: Option<OpenFile>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenFile {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    /// Length in bytes with what is still in the buffer.
    len: u64,
}

impl ChunkFilesWriter {
    /// Writes into the directory `dir`, which is created, in files of at most `bytes_max` bytes
    /// (longer only for a single chunk that is longer by itself).
    pub fn create(fs: Arc<dyn Fs>, dir: PathBuf, bytes_max: u64) -> Result<Self> {
        fs.create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let bytes_max = bytes_max.min(u64::from(u32::MAX));
        Ok(Self { fs, dir, bytes_max, files: 0, open: None, buffer: Vec::new() })
    }

    /// Adds a chunk, given by its data from the sample count on.
    pub fn write(&mut self, encoding: Encoding, data: &[u8]) -> Result<BlockChunkRef> {
        let bound = LEN_FIELD_MAX + 1 + data.len() as u64 + CRC_LEN as u64;
        if self.open.as_ref().is_none_or(|open| open.len + bound > self.bytes_max) {
            self.begin_file()?;
        }
        let file_index = self.files - 1;
        let Some(open) = &mut self.open else { unreachable!("a file was begun") };
        let offset = open.len;
        let reference = BlockChunkRef::in_file(file_index, offset).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "chunk reference above 32 bits");
            Error::io("write a chunk to", &open.path)(source)
        })?;
        let begun = self.buffer.len();
        put_uvarint(&mut self.buffer, data.len() as u64);
        self.buffer.push(encoding as u8);
        self.buffer.extend_from_slice(data);
        let crc = crc32c_append(crc32c(&[encoding as u8]), data);
        self.buffer.extend_from_slice(&crc.to_be_bytes());
        open.len += (self.buffer.len() - begun) as u64;
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        Ok(reference)
    }

    fn begin_file(&mut self) -> Result<()> {
        self.finish_file()?;
        let path = self.dir.join(file_name(self.files));
        let file = self.fs.create(&path).map_err(Error::io("create", &path))?;
        self.buffer.extend_from_slice(&MAGIC.to_be_bytes());
        self.buffer.extend_from_slice(&[VERSION, 0, 0, 0]);
        self.open = Some(OpenFile { file, path, len: HEADER_LEN as u64 });
        self.files += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.file.write_all(&self.buffer).map_err(Error::io("write", &open.path))?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn finish_file(&mut self) -> Result<()> {
        self.flush()?;
        match self.open.take() {
            Some(mut open) => open.file.sync().map_err(Error::io("sync", &open.path)),
            None => Ok(()),
        }
    }

    /// Makes all files and their names durable.
    pub fn finish(mut self) -> Result<()> {
        self.finish_file()?;
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))
    }
}

/// Reads the chunk files of a block. Holds them open, so that they can be read after the block was
/// deleted.
#[derive(Debug)]
pub struct ChunkFilesReader {
    files: Vec<ChunkFile>,
}

#[derive(Debug)]
struct ChunkFile {
    file: Arc<dyn ReadFile>,
    path: PathBuf,
    len: u64,
}

/// Keeps what was read beyond a chunk, for a walk over many of them.
#[derive(Debug, Default)]
pub struct ChunkCursor {
    ahead: ReadAhead,
    file_index: usize,
}

impl ChunkFilesReader {
    /// Opens the files in `dir` and checks their headers. Their names must count up from 000001
    /// without a gap; other names are passed over.
    pub fn open(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs.read_dir(dir).map_err(Error::io("list", dir))? {
            if entry.is_dir || !entry.name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = dir.join(&entry.name);
            if entry.name != file_name(files.len()) {
                let what = format!("chunk file found where {} was expected", file_name(files.len()));
                return Err(Error::corrupt(path, 0, what));
            }
            files.push(ChunkFile::open(fs, path)?);
        }
        Ok(Self { files })
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// Length in bytes of a file, if it is there.
    pub fn file_len(&self, file_index: usize) -> Option<u64> {
        self.files.get(file_index).map(|file| file.len)
    }

    /// Reads the chunk that `meta` stands for.
    pub fn chunk(&self, meta: &ChunkMeta) -> Result<Chunk> {
        self.chunk_with(&mut ChunkCursor::default(), meta)
    }

    /// As [`ChunkFilesReader::chunk`], within a walk.
    pub fn chunk_with(&self, cursor: &mut ChunkCursor, meta: &ChunkMeta) -> Result<Chunk> {
        let mut data = Vec::new();
        let encoding = self.read_with(cursor, meta.reference, &mut data)?;
        Ok(Chunk { mint: meta.mint, maxt: meta.maxt, encoding, data })
    }

    /// Reads the data of the chunk at `reference` into `data`, which is cleared first.
    pub fn read_with(
        &self,
        cursor: &mut ChunkCursor,
        reference: BlockChunkRef,
        data: &mut Vec<u8>,
    ) -> Result<Encoding> {
        if cursor.file_index != reference.file_index() {
            cursor.ahead.forget();
            cursor.file_index = reference.file_index();
        }
        let Some(file) = self.files.get(reference.file_index()) else {
            let dir = self.files.first().and_then(|file| file.path.parent()).unwrap_or(Path::new(CHUNKS_DIR));
            let what = format!("chunk reference {:#x} to a file that is not there", reference.0);
            return Err(Error::corrupt(dir, 0, what));
        };
        file.read(&mut cursor.ahead, reference.offset(), data)
    }

    /// Length in bytes of the whole entry at `reference`: length field, encoding, data, crc.
    pub(super) fn entry_len(&self, cursor: &mut ChunkCursor, reference: BlockChunkRef) -> Result<u64> {
        let mut data = Vec::new();
        self.read_with(cursor, reference, &mut data)?;
        let field = crate::varint::uvarint_len(data.len() as u64);
        Ok((field + 1 + data.len() + CRC_LEN) as u64)
    }
}

impl ChunkFile {
    fn open(fs: &dyn Fs, path: PathBuf) -> Result<Self> {
        let file = fs.open(&path).map_err(Error::io("open", &path))?;
        let len = file.size().map_err(Error::io("read", &path))?;
        let mut header = [0; HEADER_LEN];
        let read = file.read_at(&mut header, 0).map_err(Error::io("read", &path))?;
        let mut decoder = Decoder::new(header.get(..read).unwrap_or_default());
        let is_known = decoder.u32_be() == Ok(MAGIC) && decoder.u8() == Ok(VERSION) && read == HEADER_LEN;
        if !is_known {
            return Err(Error::corrupt(path, 0, "not the header of a chunk file of version 1"));
        }
        Ok(Self { file, path, len })
    }

    fn read(&self, ahead: &mut ReadAhead, offset: u64, data: &mut Vec<u8>) -> Result<Encoding> {
        let damaged = |what: &str| Error::corrupt(&self.path, offset, what);
        let near = ahead
            .get(&*self.file, offset, CHUNK_BYTES_GUESS.min(self.left_from(offset)))
            .map_err(Error::io("read", &self.path))?;
        let mut decoder = Decoder::new(near);
        let len = decoder.uvarint().map_err(|error| damaged(&error.to_string()))?;
        let field = near.len() - decoder.remaining();
        let whole = usize::try_from(len).ok().and_then(|len| len.checked_add(field + 1 + CRC_LEN));
        let whole = whole
            .filter(|&whole| whole <= self.left_from(offset))
            .ok_or_else(|| damaged("chunk reaches beyond the end of the file"))?;
        let entry = ahead.get(&*self.file, offset, whole).map_err(Error::io("read", &self.path))?;
        let entry = entry.get(field..whole).ok_or_else(|| damaged("chunk ends with the file"))?;
        let Some((covered, crc)) = entry.split_last_chunk::<CRC_LEN>() else {
            return Err(damaged("chunk without a checksum"));
        };
        if crc32c(covered) != u32::from_be_bytes(*crc) {
            return Err(damaged("checksum of the chunk is wrong"));
        }
        let Some((&encoding, chunk)) = covered.split_first() else {
            return Err(damaged("chunk without an encoding"));
        };
        let encoding = Encoding::from_byte(encoding)
            .ok_or_else(|| damaged(&format!("chunk encoding {encoding} is not known")))?;
        data.clear();
        data.extend_from_slice(chunk);
        Ok(encoding)
    }

    /// Bytes from `offset` to the end of the file.
    fn left_from(&self, offset: u64) -> usize {
        usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::StdFs;

    fn write(dir: &Path, bytes_max: u64, chunks: &[Vec<u8>]) -> Vec<BlockChunkRef> {
        let mut writer =
            ChunkFilesWriter::create(Arc::new(StdFs), dir.to_owned(), bytes_max).expect("a directory");
        let refs = chunks.iter().map(|data| writer.write(Encoding::Xor, data).expect("room")).collect();
        writer.finish().expect("synced");
        refs
    }

    #[test]
    fn golden_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let samples =
            b"\x00\x04\x80\xa0\xab\xfe\xf9\x62\x3f\xf0\0\0\0\0\0\0\x98\x75\xc2\x5f\xff\x20\xfa\x36\x05\x80";
        let nan = b"\0\x01\x80\xa0\xab\xfe\xf9\x62\x7f\xf8\0\0\0\0\0\x01";
        let refs = write(dir.path(), CHUNK_FILE_BYTES_MAX, &[samples.to_vec(), nan.to_vec()]);
        assert_eq!(refs, [BlockChunkRef(8), BlockChunkRef(40)]);
        let mut expected = b"\x85\xbd\x40\xdd\x01\0\0\0\x1a\x01".to_vec();
        expected.extend_from_slice(samples);
        expected.extend_from_slice(b"\x68\x22\x5b\x1a\x10\x01");
        expected.extend_from_slice(nan);
        expected.extend_from_slice(b"\xd5\x6e\x0c\x7f");
        assert_eq!(std::fs::read(dir.path().join("000001")).expect("a file"), expected);
    }

    #[test]
    fn files_are_cut_and_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        // One of them is longer than a file, one than the first read of a chunk.
        let lens = [0, 10, 60, 60, 300, 5, 5000, 1, 90];
        let chunks: Vec<_> = lens.iter().map(|&len: &usize| vec![len as u8; len]).collect();
        let refs = write(dir.path(), 200, &chunks);
        let places: Vec<_> = refs.iter().map(|place| (place.file_index(), place.offset())).collect();
        let expected = [(0, 8), (0, 14), (0, 30), (0, 96), (1, 8), (2, 8), (3, 8), (4, 8), (4, 15)];
        assert_eq!(places, expected);

        let reader = ChunkFilesReader::open(&StdFs, dir.path()).expect("valid files");
        assert_eq!(reader.file_count(), 5);
        assert_eq!(reader.file_len(0), Some(162));
        let mut cursor = ChunkCursor::default();
        for order in [[0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 6, 7, 0, 4, 2, 1, 3, 5]] {
            for index in order {
                let meta = ChunkMeta { mint: 1, maxt: 2, reference: refs[index] };
                let chunk = reader.chunk_with(&mut cursor, &meta).expect("a chunk");
                assert_eq!(chunk.data, chunks[index]);
                assert_eq!((chunk.mint, chunk.maxt, chunk.encoding), (1, 2, Encoding::Xor));
            }
        }
        let bad = [BlockChunkRef(0), BlockChunkRef(9), BlockChunkRef(1 << 31), BlockChunkRef(7 << 32 | 8)];
        for reference in bad {
            let error = reader.chunk(&ChunkMeta { mint: 0, maxt: 0, reference }).expect_err("no chunk there");
            assert!(error.is_corruption(), "{error}");
        }
    }

    #[test]
    fn a_file_is_full_by_the_longest_length_field() {
        let check = |bytes_max: u64, files: usize| {
            let dir = tempfile::tempdir().expect("a directory");
            write(dir.path(), bytes_max, &[vec![1; 10], vec![2; 10]]);
            let reader = ChunkFilesReader::open(&StdFs, dir.path()).expect("valid files");
            assert_eq!(reader.file_count(), files, "{bytes_max}");
        };
        // Header 8, first chunk 1 + 1 + 10 + 4, second chunk at most 5 + 1 + 10 + 4.
        check(44, 1);
        check(43, 2);
    }

    #[test]
    fn damaged_directories_are_refused() {
        let check = |name: &str, data: &[u8], says: &str| {
            let dir = tempfile::tempdir().expect("a directory");
            write(dir.path(), 100, &[vec![1; 80], vec![2; 80]]);
            std::fs::write(dir.path().join(name), data).expect("written");
            let error = ChunkFilesReader::open(&StdFs, dir.path()).expect_err("damaged").to_string();
            assert!(error.contains(says), "{error}");
        };
        check("000004", b"", "000003 was expected");
        check("0000002", b"", "000001 was expected");
        check("000002", b"\x85\xbd\x40\xdd\x01\0\0", "header");
        check("000002", b"\x85\xbd\x40\xdd\x02\0\0\0", "header");
        check("000002", b"\x85\xbd\x40\xde\x01\0\0\0", "header");
    }
}
