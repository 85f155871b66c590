//! Where linear memories live: slots of one big mapping, so that a hundred thousand instances cost a
//! handful of the kernel's 65,530 mappings.
//!
//! There are no guard pages: compiled code checks every access against the memory's length. A memory
//! starts in a slot of 2 MiB, one page of the page table, and moves to a mapping of its own when it
//! outgrows that. Freed slots are given back to the kernel at once, which makes them read as zeros.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap, munmap,
};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::words::limits;

/// How the message of an error begins that means: not the guest's fault, there is no room left.
pub const NO_ROOM: &str = "no room for a linear memory";

const SLOT_BYTES: usize = limits::GUEST_SLOT_BYTES;

/// A range of anonymous private memory, unmapped when dropped.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is owned memory, bound to no thread; what is in it is reached through raw
// pointers only, by those that own a part of it.
unsafe impl Send for Mapping {}
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> rustix::io::Result<Self> {
        // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing else.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, bytes })
    }

    /// May move it; the contents stay.
    fn grow(&mut self, bytes: usize) -> rustix::io::Result<()> {
        // SAFETY: `self` owns exactly this range, and whoever uses its address asks again after
        // growth.
        let base =
            unsafe { mremap(self.base.as_ptr().cast(), self.bytes, bytes, MremapFlags::MAYMOVE)? };
        self.base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `self` owns exactly this range and is gone after this.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) } {
            tracing::error!(%error, bytes = self.bytes, "a linear memory could not be unmapped");
        }
    }
}

/// Hands out linear memories. Shared by all instances of an engine.
pub struct Arena {
    slots: Slots,
    mappings: AtomicUsize,
    mappings_max: usize,
}

struct Slots {
    mapping: Mapping,
    first: usize,
    count: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Used before, zeroed since; the one freed last is taken first, for its warm page table.
    returned: Vec<u32>,
    /// All slots from here on were never used.
    fresh: usize,
}

impl Arena {
    pub fn new(slots_max: usize, mappings_max: usize) -> anyhow::Result<Arc<Self>> {
        let count = slots_max.clamp(1, u32::MAX as usize);
        let bytes = (count + 1).saturating_mul(SLOT_BYTES);
        let mapping = Mapping::new(bytes).map_err(|error| {
            anyhow::anyhow!(
                "cannot reserve {} GiB of address space for {count} instances ({error}); lower \
                 `hot_entities_max`, or allow overcommit (sysctl vm.overcommit_memory=0)",
                bytes >> 30
            )
        })?;
        // A huge page would make every slot resident as a whole. Kernels without huge pages refuse
        // the advice, and do not need it.
        // SAFETY: advice about a range that `mapping` owns; it changes no contents.
        let advised = unsafe {
            madvise(mapping.base.as_ptr().cast(), mapping.bytes, Advice::LinuxNoHugepage)
        };
        if let Err(error) = advised {
            tracing::debug!(%error, "the kernel does not take advice on huge pages");
        }
        let first = mapping.base.as_ptr().align_offset(SLOT_BYTES);
        let slots = Slots { mapping, first, count, free: Mutex::default() };
        Ok(Arc::new(Self { slots, mappings: AtomicUsize::new(0), mappings_max }))
    }

    fn take_slot(self: &Arc<Self>) -> Result<Slot, String> {
        let mut free = self.slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.returned.pop() {
            Some(index) => index,
            None if free.fresh < self.slots.count => {
                free.fresh += 1;
                (free.fresh - 1) as u32
            }
            None => {
                return Err(format!("{NO_ROOM}: all {} slots are taken", self.slots.count));
            }
        };
        Ok(Slot { arena: self.clone(), index, used_bytes: 0 })
    }

    fn take_mapping(self: &Arc<Self>, bytes: usize) -> Result<Own, String> {
        let counted = self.mappings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < self.mappings_max).then_some(count + 1)
        });
        if counted.is_err() {
            return Err(format!(
                "{NO_ROOM}: {} instances already use more than {} MiB",
                self.mappings_max,
                SLOT_BYTES / limits::MIB
            ));
        }
        match Mapping::new(bytes) {
            Ok(mapping) => Ok(Own { arena: self.clone(), mapping }),
            Err(error) => {
                self.mappings.fetch_sub(1, Ordering::Relaxed);
                Err(format!("{NO_ROOM}: {error}"))
            }
        }
    }
}

/// A slot in use. Dropping it zeroes it and gives it back.
struct Slot {
    arena: Arc<Arena>,
    index: u32,
    /// Nothing beyond was ever written.
    used_bytes: usize,
}

impl Slot {
    fn base(&self) -> *mut u8 {
        let slots = &self.arena.slots;
        let offset = slots.first + self.index as usize * SLOT_BYTES;
        // SAFETY: `index < count`, and the mapping has room for `count` slots after `first`, which
        // is less than a slot.
        unsafe { slots.mapping.base.as_ptr().add(offset) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.used_bytes > 0 {
            // SAFETY: the slot is ours, its memory is no longer in use, and the length is within it.
            let zeroed =
                unsafe { madvise(self.base().cast(), self.used_bytes, Advice::LinuxDontNeed) };
            if let Err(error) = zeroed {
                // One entity must never see another's memory: better lose the slot.
                tracing::error!(%error, "a slot could not be zeroed and is given up");
                return;
            }
        }
        let mut free = self.arena.slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push(self.index);
    }
}

/// A mapping in use by one memory.
struct Own {
    arena: Arc<Arena>,
    mapping: Mapping,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.arena.mappings.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Place {
    Slot(Slot),
    Own(Own),
}

struct Memory {
    place: Place,
    bytes: usize,
    bytes_max: usize,
}

impl Memory {
    fn new(arena: &Arc<Arena>, bytes: usize, bytes_max: usize) -> Result<Self, String> {
        let place = if bytes <= SLOT_BYTES {
            let mut slot = arena.take_slot()?;
            slot.used_bytes = bytes;
            Place::Slot(slot)
        } else {
            Place::Own(arena.take_mapping(bytes)?)
        };
        Ok(Self { place, bytes, bytes_max })
    }

    /// Address space for some growth to come, so that a memory that grows page by page is not moved
    /// each time. What is not touched costs nothing.
    fn roomy(&self, bytes: usize) -> usize {
        bytes.max(self.bytes.saturating_mul(2).min(self.bytes_max))
    }

    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        let roomy = self.roomy(bytes);
        match &mut self.place {
            Place::Slot(slot) if bytes <= SLOT_BYTES => {
                slot.used_bytes = slot.used_bytes.max(bytes)
            }
            Place::Slot(slot) => {
                let own = slot.arena.take_mapping(roomy)?;
                // SAFETY: both ranges are ours, they do not overlap, `self.bytes` fits in both: the
                // slot holds it already, and the mapping is larger than the slot.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        slot.base(),
                        own.mapping.base.as_ptr(),
                        self.bytes,
                    );
                }
                self.place = Place::Own(own);
            }
            Place::Own(own) if bytes <= own.mapping.bytes => {}
            Place::Own(own) => {
                own.mapping.grow(roomy).map_err(|error| format!("{NO_ROOM}: {error}"))?;
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

// SAFETY: `as_ptr` is the start of at least `byte_capacity` readable and writable bytes that belong
// to this memory alone and were zero at first; growth keeps the contents.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        match &self.place {
            Place::Slot(_) => SLOT_BYTES,
            Place::Own(own) => own.mapping.bytes,
        }
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        self.grow(new_size).map_err(wasmtime::Error::msg)
    }

    fn as_ptr(&self) -> *mut u8 {
        match &self.place {
            Place::Slot(slot) => slot.base(),
            Place::Own(own) => own.mapping.base.as_ptr(),
        }
    }
}

/// What wasmtime asks for memories.
pub struct Creator(pub Arc<Arena>);

// SAFETY: memories are zeroed and disjoint, see `Memory` and `Slot`; reservations and guards are
// refused, so compiled code relies on none.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if reserved_size_in_bytes.unwrap_or(0) > 0 || guard_size_in_bytes > 0 {
            return Err("the arena has no reservations and no guard pages".into());
        }
        let bytes_max = maximum.unwrap_or(usize::MAX).min(limits::GUEST_MEMORY_BYTES_MAX);
        Ok(Box::new(Memory::new(&self.0, minimum, bytes_max)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::fixtures::{Guest, command, engine, instance_limits};
    use crate::wasm::{Command, Engine, EngineConfig, Failure, Instance};

    const MIB: usize = limits::MIB;

    fn bytes(memory: &mut Memory) -> &mut [u8] {
        // SAFETY: that many bytes belong to this memory, and `memory` is borrowed meanwhile.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.byte_size()) }
    }

    /// As fast in unoptimised tests as comparing memory is.
    fn are_all(bytes: &[u8], value: u8) -> bool {
        bytes.first() == Some(&value) && bytes[1..] == bytes[..bytes.len() - 1]
    }

    #[test]
    fn a_reused_slot_reads_as_zeros_everywhere() {
        let arena = Arena::new(1, 1).expect("an arena");
        let mut memory = Memory::new(&arena, SLOT_BYTES / 2, usize::MAX).expect("room");
        memory.grow(SLOT_BYTES).expect("grows");
        bytes(&mut memory).fill(0xaa);
        let first = memory.as_ptr();
        drop(memory);
        let mut memory = Memory::new(&arena, SLOT_BYTES, usize::MAX).expect("room");
        assert_eq!(memory.as_ptr(), first);
        assert!(are_all(bytes(&mut memory), 0));
    }

    #[test]
    fn a_slot_that_was_left_for_a_mapping_reads_as_zeros_too() {
        let arena = Arena::new(1, 1).expect("an arena");
        let mut grown = Memory::new(&arena, SLOT_BYTES, usize::MAX).expect("room");
        bytes(&mut grown).fill(0xaa);
        grown.grow(SLOT_BYTES + 1).expect("grows");
        let mut memory =
            Memory::new(&arena, SLOT_BYTES, usize::MAX).expect("the slot is free again");
        assert!(are_all(bytes(&mut memory), 0));
        assert!(are_all(&bytes(&mut grown)[..SLOT_BYTES], 0xaa));
    }

    #[test]
    fn growth_keeps_contents_and_adds_zeros() {
        let arena = Arena::new(1, 1).expect("an arena");
        let mut memory = Memory::new(&arena, MIB, 64 * MIB).expect("room");
        let mut written = 0;
        for size in [MIB, SLOT_BYTES, SLOT_BYTES + 65_536, 5 * MIB, 40 * MIB] {
            memory.grow(size).expect("grows");
            assert!(memory.byte_capacity() >= size);
            let bytes = bytes(&mut memory);
            assert_eq!(bytes.len(), size);
            assert!(written == 0 || are_all(&bytes[..written], 7));
            assert!(written == size || are_all(&bytes[written..], 0));
            bytes.fill(7);
            written = size;
        }
    }

    #[test]
    fn says_when_there_is_no_slot_and_no_mapping_left() {
        let arena = Arena::new(1, 1).expect("an arena");
        let slot = Memory::new(&arena, MIB, usize::MAX).expect("room");
        let refused = Memory::new(&arena, MIB, usize::MAX).err().expect("refused");
        assert!(refused.starts_with(NO_ROOM), "{refused}");
        let mut mapping = Memory::new(&arena, 3 * MIB, usize::MAX).expect("room");
        let refused = Memory::new(&arena, 3 * MIB, usize::MAX).err().expect("refused");
        assert!(refused.starts_with(NO_ROOM), "{refused}");
        mapping.grow(9 * MIB).expect("a mapping grows in its place in the count");
        drop((slot, mapping));
        Memory::new(&arena, MIB, usize::MAX).expect("room again");
        Memory::new(&arena, 3 * MIB, usize::MAX).expect("room again");
    }

    #[test]
    fn memories_of_several_threads_do_not_overlap() {
        let arena = Arena::new(64, 64).expect("an arena");
        std::thread::scope(|scope| {
            for tag in 1..=4u8 {
                let arena = &arena;
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut memories: Vec<_> = (0..8)
                            .map(|_| Memory::new(arena, 65_536, usize::MAX).expect("room"))
                            .collect();
                        for memory in &mut memories {
                            assert!(are_all(bytes(memory), 0));
                            bytes(memory).fill(tag);
                        }
                        if round % 50 == 0 {
                            memories[0].grow(SLOT_BYTES + 1).expect("grows");
                        }
                        for memory in &mut memories {
                            assert!(are_all(&bytes(memory)[..65_536], tag));
                        }
                    }
                });
            }
        });
    }

    /// Its commands are an operation and an address.
    fn prober() -> Guest {
        let address = "(i32.load offset=1 (local.get $payload))";
        let operation = "(i32.load8_u (local.get $payload))";
        let operations = [
            format!("(drop (i32.load8_u {address}))"),
            format!("(i32.store8 {address} (i32.const 1))"),
            format!("(drop (i64.load offset=0xfffffff0 {address}))"),
            format!("(i64.store offset=0x7fffffff {address} (i64.const 1))"),
            format!("(memory.fill {address} (i32.const 1) (i32.const -1))"),
            format!("(memory.copy {address} (i32.const 0) (i32.const 65536))"),
            format!("(drop (v128.load {address}))"),
            format!("(if (i32.eq (memory.grow {address}) (i32.const -1)) (then unreachable))"),
            // The whole memory from this address on must be zero.
            format!(
                "(local.set $i {address})
                (block $done
                  (loop $next
                    (br_if $done
                      (i32.ge_u (local.get $i) (i32.shl (memory.size) (i32.const 16))))
                    (if (i32.ne (i32.load8_u (local.get $i)) (i32.const 0)) (then unreachable))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br $next)))"
            ),
        ];
        let mut body = String::new();
        for (number, code) in operations.iter().enumerate() {
            body += &format!("(if (i32.eq {operation} (i32.const {number})) (then {code}))\n");
        }
        Guest::new().with("handle", &format!("{body} (i32.const 16)"))
    }

    const LOAD: u8 = 0;
    const STORE: u8 = 1;
    const GROW: u8 = 7;
    const ALL_ZERO: u8 = 8;

    fn probe(instance: &mut Instance, operation: u8, address: u32) -> Result<(), Failure> {
        let mut payload = vec![operation];
        payload.extend(address.to_le_bytes());
        let command = Command { payload: payload.into(), ..command(b"") };
        instance.handle(&command).map(|answer| drop(answer.expect("no rejection")))
    }

    #[test]
    fn accesses_out_of_bounds_trap_in_slots_and_in_grown_memories() {
        let component = prober().load(&engine());
        let pages: u32 = 2;
        for grown_pages in [0, 1, 40, 700] {
            let end = (pages + grown_pages) * 65_536;
            let start = || {
                let mut instance =
                    component.instantiate("t", "i", instance_limits()).expect("starts");
                probe(&mut instance, GROW, grown_pages).expect("grows");
                instance
            };
            let mut inside = start();
            probe(&mut inside, LOAD, end - 1).expect("the last byte is readable");
            probe(&mut inside, STORE, end - 1).expect("the last byte is writable");
            for operation in 0..=6 {
                for address in [end, end + 1, end + 4_096, 0x7fff_ffff, u32::MAX] {
                    let failure = probe(&mut start(), operation, address).expect_err("traps");
                    assert!(
                        matches!(&failure, Failure::Trap { reason, .. } if reason.contains("out of bounds")),
                        "operation {operation} at {address:#x} of {end:#x}: {failure}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_new_instance_sees_nothing_of_the_one_before() {
        let engine = Engine::new(EngineConfig::default()).expect("an engine");
        let component = prober().load(&engine);
        for _ in 0..3 {
            let mut instance = component.instantiate("t", "i", instance_limits()).expect("starts");
            probe(&mut instance, ALL_ZERO, 8_192).expect("is zero");
            for address in (8_192..131_072).step_by(4_096) {
                probe(&mut instance, STORE, address).expect("writes");
            }
            probe(&mut instance, ALL_ZERO, 8_192).expect_err("is no longer zero");
        }
    }

    #[test]
    fn more_instances_fit_than_the_kernel_has_mappings_for() {
        const INSTANCES: usize = 20_000;
        let config = EngineConfig { instances_max: INSTANCES, ..EngineConfig::default() };
        let engine = Engine::new(config).expect("an engine");
        let component = Guest::new().load(&engine);
        let mappings = || std::fs::read_to_string("/proc/self/maps").expect("maps").lines().count();
        let before = mappings();
        let instances: Vec<_> = (0..INSTANCES)
            .map(|_| component.instantiate("t", "i", instance_limits()).expect("room"))
            .collect();
        assert!(mappings() < before + 1_000, "{} mappings, {before} before", mappings());
        assert_eq!(instances.len(), INSTANCES);
    }

    #[test]
    fn without_a_slot_an_instance_is_refused_without_blame() {
        let engine = Engine::new(EngineConfig::default()).expect("an engine");
        let component = Guest::new().load(&engine);
        let instances: Vec<_> = (0..limits::GUEST_SLOTS_HEADROOM)
            .map(|_| component.instantiate("t", "i", instance_limits()).expect("room"))
            .collect();
        let refused = component.instantiate("t", "i", instance_limits()).err().expect("refused");
        assert!(matches!(refused, Failure::NoRoom { .. }), "{refused}");
        drop(instances);
        component.instantiate("t", "i", instance_limits()).expect("room again");
    }
}
