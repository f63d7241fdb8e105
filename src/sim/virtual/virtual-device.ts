/**
 * A device in virtual time. Its queue has the hazards of a real one: nothing runs when it is called, a copy reads its
 * source when it executes, and a buffer that is mapped late shows what lies in it by then.
 *
 *     write ─┐
 *     submit ┴▶ queue ▶ … ▶ [write, write, submission] ─executeNext─▶ buffers ─view─▶ host
 *
 * The caller of `executeNext` and `view` owns time. Kernels are their TypeScript references. There are no promises: the
 * methods of `Device` that return one throw.
 */

import type {
  BoundKernel,
  BufferUsage,
  CommandRecorder,
  Device,
  DeviceBuffer,
  DeviceInfo,
  Kernel,
} from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

export class VirtualBuffer implements DeviceBuffer {
  readonly label: string;
  readonly usage: BufferUsage;
  readonly words: Uint32Array<ArrayBuffer>;

  constructor(label: string, words: Uint32Array<ArrayBuffer>, usage: BufferUsage) {
    this.label = label;
    this.usage = usage;
    this.words = words;
  }

  get byteLength(): number {
    return this.words.byteLength;
  }

  destroy(): void {}
}

type VirtualBound = BoundKernel & Readonly<{ words: readonly Uint32Array[] }>;

type Command =
  | Readonly<{ kind: 'write'; target: VirtualBuffer; at: number; from: number; words: number }>
  | Readonly<{ kind: 'dispatch'; bound: VirtualBound }>
  | Readonly<{ kind: 'copy'; source: VirtualBuffer; from: number; target: VirtualBuffer; at: number; words: number }>
  | Readonly<{ kind: 'end' }>;

const END: Command = { kind: 'end' };
const INFO: DeviceInfo = {
  kind: 'cpu',
  description: 'virtual (TypeScript reference kernels in virtual time)',
  isSoftware: true,
  subgroupSizes: null,
  hasTimestamps: false,
  maxStorageBufferBytes: 2 ** 31,
};
/** Holds all buffers of most storms. */
const MEMORY_WORDS = 1024;
const ONE_WORKGROUP = [1, 1, 1] as const;

export class VirtualDevice implements Device, CommandRecorder {
  readonly info: DeviceInfo = INFO;
  /** Where the next buffers go, at its end. */
  #memory = new ArrayBuffer(0);
  #numWordsLeft = 0;
  #queue: Command[] = [];
  #head = 0;
  /** The data of writes that are queued, one behind the other. */
  #written = new Uint32Array(128);
  #numWritten = 0;
  #isRecording = false;

  get lost(): never {
    throw inVirtualTime('lost');
  }

  createBuffer(label: string, byteLength: number, usage: BufferUsage): VirtualBuffer {
    return new VirtualBuffer(label, this.#allocate(Math.ceil(byteLength / 4)), usage);
  }

  /** One piece of memory for many buffers: a short run makes more of them than steps. */
  #allocate(numWords: number): Uint32Array<ArrayBuffer> {
    if (numWords > this.#numWordsLeft) {
      this.#memory = new ArrayBuffer(4 * Math.max(numWords, MEMORY_WORDS));
      this.#numWordsLeft = this.#memory.byteLength / 4;
    }
    const from = this.#memory.byteLength - 4 * this.#numWordsLeft;
    this.#numWordsLeft -= numWords;
    return new Uint32Array(this.#memory, from, numWords);
  }

  bindNow(kernel: Kernel, buffers: readonly DeviceBuffer[]): BoundKernel {
    return { kernel, words: buffers.map((buffer) => (buffer as VirtualBuffer).words) } as VirtualBound;
  }

  /** The data is taken here; it is in the buffer once the commands before it have run. */
  write(buffer: DeviceBuffer, byteOffset: number, data: Uint32Array): void {
    requireRange(buffer, byteOffset, data.byteLength);
    const words = data.length;
    const from = this.#numWritten;
    this.#numWritten += words;
    if (this.#numWritten > this.#written.length) {
      const grown = new Uint32Array(2 * this.#numWritten);
      grown.set(this.#written);
      this.#written = grown;
    }
    copyWords(data, 0, this.#written, from, words);
    this.#queue.push({ kind: 'write', target: buffer as VirtualBuffer, at: byteOffset / 4, from, words });
  }

  /**
   * Queues one command buffer. A write of the host while it is recorded comes before it, as it does on a real queue.
   */
  submit(record: (commands: CommandRecorder) => void): void {
    const writes = this.#queue;
    const commands: Command[] = [];
    // Commands go to a list of their own, writes of the host straight to the queue.
    this.#recorded = commands;
    this.#isRecording = true;
    record(this);
    this.#isRecording = false;
    for (const command of commands) writes.push(command);
    writes.push(END);
  }

  #recorded: Command[] = [];

  dispatch(bound: BoundKernel): void {
    this.#record({ kind: 'dispatch', bound: bound as VirtualBound });
  }

  copy(source: DeviceBuffer, from: number, target: DeviceBuffer, at: number, byteLength: number): void {
    requireRange(source, from, byteLength);
    requireRange(target, at, byteLength);
    this.#record({
      kind: 'copy',
      source: source as VirtualBuffer,
      from: from / 4,
      target: target as VirtualBuffer,
      at: at / 4,
      words: byteLength / 4,
    });
  }

  /** Runs the queue up to the end of the next submission. */
  executeNext(): void {
    const queue = this.#queue;
    for (;;) {
      const command = queue[this.#head];
      if (command === undefined)
        throw RoutedExpertsError.of('INVARIANT', 'the virtual device ran more than was submitted');
      this.#head += 1;
      if (command.kind === 'end') break;
      this.#run(command);
    }
    if (this.#head === queue.length) {
      this.#queue = [];
      this.#head = 0;
      this.#numWritten = 0;
    }
  }

  #run(command: Command): void {
    switch (command.kind) {
      case 'write':
        copyWords(this.#written, command.from, command.target.words, command.at, command.words);
        return;
      case 'dispatch':
        command.bound.kernel.reference(command.bound.words, ONE_WORKGROUP);
        return;
      case 'copy':
        copyWords(command.source.words, command.from, command.target.words, command.at, command.words);
        return;
      case 'end':
        return;
      default:
        command satisfies never;
    }
  }

  /** Returns a view of the first bytes of a readback buffer. Valid until the device runs on. */
  view(buffer: DeviceBuffer, byteLength: number): Uint8Array {
    requireRange(buffer, 0, byteLength);
    const { words } = buffer as VirtualBuffer;
    return new Uint8Array(words.buffer, words.byteOffset, byteLength);
  }

  bind(): never {
    throw inVirtualTime('bind');
  }

  read(): never {
    throw inVirtualTime('read');
  }

  time(): never {
    throw inVirtualTime('time');
  }

  destroy(): never {
    throw inVirtualTime('destroy');
  }

  #record(command: Command): void {
    if (!this.#isRecording) throw RoutedExpertsError.of('INVARIANT', 'a command was recorded outside of a submission');
    this.#recorded.push(command);
  }
}

/** A loop: these copies are of a few words, which is less than a view costs. */
function copyWords(source: Uint32Array, from: number, target: Uint32Array, at: number, words: number): void {
  for (let i = 0; i < words; i += 1) target[at + i] = source[from + i]!;
}

function requireRange(buffer: DeviceBuffer, byteOffset: number, byteLength: number): void {
  if (byteOffset % 4 === 0 && byteLength % 4 === 0 && byteOffset >= 0 && byteOffset + byteLength <= buffer.byteLength)
    return;
  throw RoutedExpertsError.of(
    'INVARIANT',
    `bytes [${byteOffset}, ${byteOffset + byteLength}) of buffer "${buffer.label}", which has ${buffer.byteLength}`,
  );
}

function inVirtualTime(what: string): RoutedExpertsError {
  return RoutedExpertsError.of('INVARIANT', `"${what}" of the virtual device was used: virtual time has no promises`);
}
