/**
 * The contract of `Device` (src/contract/device.ts), over its implementations: what a buffer, a copy, a kernel, a read
 * and an end mean; each kernel bit for bit equal to its reference; whole forward passes equal to the oracle (L2). Runs
 * on whatever adapter there is.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Device, Kernel } from '../../src/contract/device.ts';
import { CpuDevice, DESTROYED } from '../../src/kernels/device/cpu-device.ts';
import { openDevice } from '../../src/kernels/device/open-device.ts';
import { Ballast } from '../../src/kernels/model/ballast/calibrated-ballast.ts';
import { ForwardPass } from '../../src/kernels/model/forward-pass.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { Oracle } from '../../src/kernels/model/oracle.ts';
import { gateSeed } from '../../src/kernels/model/mix/mix.ts';
import { expertWork } from '../../src/kernels/model/route/monolithic-route.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { engineRouterName, engineRouters } from '../../src/kernels/model/route/engine-router.ts';
import { StepInput } from '../../src/kernels/model/step-input.ts';
import { wgslKernels, wgslKernelsFor, wgslKernelsWith } from '../../src/kernels/model/wgsl-kernels.ts';
import { DEVICES, engineConfig, expectSame, model, randomNumbers, randomWords, readWords, wordsOf } from './harness.ts';
import { runKernelCases } from './kernel-cases.ts';
import { ToyEngine } from './toy-engine.ts';

const addOne: Kernel = {
  name: 'test/add-one',
  wgsl: () => `@group(0) @binding(0) var<storage, read_write> values: array<u32>;
    @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3u) { values[id.x] += 1u; }`,
  bindings: ['read-write'],
  requires: [],
  reference: ([values], [x]) => {
    for (let i = 0; i < x; i++) values![i]! += 1;
  },
};

const CLOCK = {
  name: 'clock',
  open: () => openDevice('clock', null, { stepMs: 0.1, perTokenUs: 1, copyLatencyMs: 0.04, copyGBPerS: 40 }),
};

describe.each([...DEVICES, CLOCK])('$name', ({ open }) => {
  let device: Device;

  beforeAll(async () => {
    device = await open();
  });

  afterAll(async () => {
    await device.destroy();
  });

  test('a new buffer is full of zeros', async () => {
    const buffer = device.createBuffer('zeros', 64, 'storage');
    expectSame(await readWords(device, buffer, 16), new Uint32Array(16), 'zeros');
  });

  test('a write takes its data before it returns, at its offset', async () => {
    const buffer = device.createBuffer('written', 64, 'storage');
    const data = Uint32Array.of(1, 2, 3);
    device.write(buffer, 8, data.subarray(1));
    data.fill(9);
    expectSame(await readWords(device, buffer, 4), [0, 0, 2, 3], 'written');
  });

  test('writes, dispatches and copies happen in the order of their calls', async () => {
    const buffer = device.createBuffer('ordered', 16, 'storage');
    const copies = device.createBuffer('copies', 16, 'storage');
    const bound = await device.bind(addOne, [buffer]);
    device.write(buffer, 0, Uint32Array.of(10, 0));
    device.submit((commands) => {
      commands.dispatch(bound, 1);
      commands.copy(buffer, 0, copies, 0, 4);
      commands.dispatch(bound, 1);
      commands.dispatch(bound, 1);
      commands.copy(buffer, 0, copies, 4, 4);
    });
    device.write(buffer, 0, Uint32Array.of(20));
    device.submit((commands) => commands.copy(buffer, 0, copies, 8, 4));
    expectSame(await readWords(device, copies, 3), [11, 13, 20], 'copies');
  });

  test('a ring of reads overlaps: each slot gives the bytes of its own step, and is free again after', async () => {
    const buffer = device.createBuffer('counter', 16, 'storage');
    const bound = await device.bind(addOne, [buffer]);
    const ring = [0, 1, 2].map((i) => device.createBuffer(`ring-${i}`, 16, 'readback'));
    const seen: number[] = [];
    for (let round = 0; round < 4; round++) {
      const reads = ring.map((slot) => {
        device.submit((commands) => {
          commands.dispatch(bound, 1);
          commands.copy(buffer, 0, slot, 0, 16);
        });
        return device.read(slot, 16, (bytes) => wordsOf(bytes)[0]!);
      });
      seen.push(...(await Promise.all(reads)));
    }
    expect(seen).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  });

  test('what consume throws comes out of read, and the buffer is usable again', async () => {
    const slot = device.createBuffer('slot', 16, 'readback');
    const boom = new Error('boom');
    const failing = device.read(slot, 16, () => {
      throw boom;
    });
    await expect(failing).rejects.toBe(boom);
    await expect(device.read(slot, 16, (bytes) => bytes.byteLength)).resolves.toBe(16);
  });

  test('a buffer over the limit is refused by name', () => {
    const tooMany = device.info.maxStorageBufferBytes + 4;
    expect(() => device.createBuffer('huge', tooMany, 'storage')).toThrow(/byte length of buffer "huge" is \d+; give/);
    expect(() => device.createBuffer('none', 0, 'storage')).toThrow(/"none" is 0/);
  });

  test('time answers the nanoseconds of the dispatches, where there are timestamps', async () => {
    const buffer = device.createBuffer('timed', 16, 'storage');
    const bound = await device.bind(addOne, [buffer]);
    if (device.info.hasTimestamps)
      expect(await device.time((commands) => commands.dispatch(bound, 1))).toBeGreaterThan(0);
    else await expect(device.time((commands) => commands.dispatch(bound, 1))).rejects.toThrow('no timestamps');
  });

  runKernelCases(() => device);

  test('passes of a random engine equal the oracle: chunked prefill, decode, shared blocks, lost KV', async () => {
    const engine = await ToyEngine.create(device, model(), engineConfig(), wgslKernels, 1);
    await engine.run(150);
    expect(engine.rows).toBeGreaterThan(500);
    expect(engine.preemptions).toBeGreaterThan(5);
    expect(engine.shares).toBeGreaterThan(3);
  });

  test('a context of 32,768 tokens: a prompt in chunks, in scattered blocks, then a step that decodes', async () => {
    const length = 32_768;
    const blockSize = 16;
    const numBlocks = (length + blockSize) / blockSize;
    const config = engineConfig({
      blockSize,
      numBlocks: numBlocks + 1,
      maxNumSeqs: 4,
      maxNumBatchedTokens: 2048,
      maxModelLen: length + blockSize,
    });
    const shape = modelPreset('tiny');
    const pass = await ForwardPass.create(device, { model: shape, engine: config, ballastMs: 0, kernels: wgslKernels });
    const input = new StepInput(pass.shape);
    const sequence = new Oracle(new Router(shape));
    const tokens = randomWords(randomNumbers(8), length + 1).map((word) => word % shape.vocabSize);
    // 1031 is prime to the number of blocks: every block, in no order.
    const blockOf = (ordinal: number): number => 1 + ((ordinal * 1031) % numBlocks);
    for (let start = 0; start <= length; start += 2048) {
      const count = Math.min(2048, length + 1 - start);
      const firstBlock = start / blockSize;
      const newBlocks = Math.ceil(count / blockSize);
      input.begin(count, 1, newBlocks);
      input.setTokens(input.addRequest(1, start, count, 0, true), tokens.subarray(start, start + count));
      for (let i = 0; i < count; i++) {
        const position = start + i;
        input.setSlot(i, blockOf(Math.floor(position / blockSize)) * blockSize + (position % blockSize));
      }
      for (let i = 0; i < newBlocks; i++) input.addTableUpdate(1, firstBlock + i, blockOf(firstBlock + i));
      input.end();
      pass.upload(input);
      device.submit((commands) => pass.record(commands, input));
      const expected = new Uint32Array(4 * count);
      for (let i = 0; i < count; i++) {
        sequence.push(tokens[start + i]!);
        sequence.row(expected, 4 * i);
      }
      expectSame(await readWords(device, pass.routedExperts, 4 * count), expected, `rows from ${start} on`);
    }
    pass.destroy();
  });

  test('with drafts: accepted and rejected ones, tokens and rows equal to the oracle', async () => {
    const config = engineConfig({ numSpeculativeTokens: 3, blockSize: 5, maxModelLen: 120 });
    const engine = await ToyEngine.create(device, model({ numExperts: 300, topK: 7 }), config, wgslKernels, 2);
    await engine.run(150);
    expect(engine.accepted).toBeGreaterThan(50);
    expect(engine.rejected).toBeGreaterThan(20);
  });

  test.each([0, 0.25, 0.9, 1])('of the drafts a share of %d is right, and always of the same ones', async (rate) => {
    const config = engineConfig({ numSpeculativeTokens: 3, blockSize: 5, maxModelLen: 120 });
    const runs = await Promise.all(
      [device, new CpuDevice()].map(async (each) => {
        const engine = await ToyEngine.create(each, model({ numLayers: 1 }), config, wgslKernels, 4, rate);
        await engine.run(150);
        return engine;
      }),
    );
    const [engine, other] = [runs[0]!, runs[1]!];
    expect(engine.proposed).toBeGreaterThan(700);
    expect(engine).toMatchObject({ right: other.right, accepted: other.accepted, rejected: other.rejected });
    if (rate === 0 || rate === 1) expect(engine.right).toBe(rate * engine.proposed);
    else expect(Math.abs(engine.right / engine.proposed - rate)).toBeLessThan(0.05);
    if (rate === 1) expect(engine.rejected).toBe(0);
  });

  test.each(['gpt-oss-20b', 'granite-3.0-1b', 'tiny', 'tiny-grouped', 'tiny-softmax-bias'])(
    'a few passes of %s equal the oracle',
    async (name) => {
      const engine = await ToyEngine.create(device, modelPreset(name), engineConfig(), wgslKernels, 3);
      await engine.run(25);
      expect(engine.rows).toBeGreaterThan(50);
    },
  );

  test.each([true, false])(
    'a monolithic router does the chosen experts’ work; routing_replay_out: %s',
    async (hasRoutingReplay) => {
      const shape = model({ topK: 3, numExperts: 20 });
      const { numLayers, numExperts, topK } = shape;
      const kernels = wgslKernelsFor({ kind: 'monolithic', hasRoutingReplay });
      const pass = await ForwardPass.create(device, { model: shape, engine: engineConfig(), ballastMs: 0, kernels });
      const input = new StepInput(pass.shape);
      const sequence = new Oracle(new Router(shape));
      const rowLength = numLayers * topK;
      const expected = new Uint32Array(5 * rowLength);
      const numIds = pass.shape.maxNumBatchedTokens * rowLength;
      input.begin(5, 1, 2);
      input.setTokens(input.addRequest(3, 0, 5, 0, true), Uint32Array.of(9, 8, 7, 6, 5));
      for (let i = 0; i < 5; i++) {
        input.setSlot(i, 4 + i);
        sequence.push(9 - i);
        sequence.row(expected, i * rowLength);
      }
      for (let i = 0; i < 2; i++) input.addTableUpdate(3, i, 1 + i);
      input.end();
      pass.upload(input);
      device.submit((commands) => {
        pass.record(commands, input);
        pass.rows?.recordRows!(commands, 5);
      });

      // The hook's buffer stays as it was allocated: whoever read it would take zeros for rows.
      expectSame(await readWords(device, pass.routedExperts, numIds), new Uint32Array(numIds), 'routedExperts');
      const hidden = await readWords(device, pass.hidden, 5 * 4);
      const work = Uint32Array.from({ length: 5 * numLayers }, (_, place) => {
        const [row, layer] = [Math.floor(place / numLayers), place % numLayers];
        const seed = gateSeed(hidden[4 * row]!, hidden[4 * row + 1]!, layer);
        const ids = expected.subarray(place * topK, (place + 1) * topK);
        return ids.reduce((sum, id) => sum + expertWork(seed, layer * numExperts + id), 0);
      });
      expectSame(await readWords(device, pass.expertOutput, work.length), work, 'expert work');
      expect(pass.rows !== null).toBe(hasRoutingReplay);
      if (pass.rows === null) return pass.destroy();
      expectSame(await readWords(device, pass.rows.routedExperts, 5 * rowLength), expected, 'expanded rows');
      device.write(pass.rows.pack.rows, 0, Uint32Array.of(3, 4, 0, 2));
      device.submit((commands) => commands.dispatch(pass.rows!.pack.bound, 1));
      const packed = new Uint8Array((await readWords(device, pass.rows.pack.packed, 7)).buffer);
      const wanted = [4, 0, 2].flatMap((row) => [...expected.subarray(row * rowLength, (row + 1) * rowLength)]);
      expectSame(packed.subarray(0, 27), wanted, 'packed rows');
      return pass.destroy();
    },
  );

  test('an epoch changes keys, rows and tokens, and the oracle follows it', async () => {
    const shape = model();
    const pass = await ForwardPass.create(device, {
      model: shape,
      engine: engineConfig(),
      ballastMs: 0,
      kernels: wgslKernels,
    });
    const input = new StepInput(pass.shape);
    const sequence = new Oracle(new Router(shape));
    for (const [position, epoch] of [0, 7, 9].entries()) {
      input.begin(1, 1, position === 0 ? 1 : 0, epoch);
      input.setToken(input.addRequest(2, position, 1, 0, true), 5);
      input.setSlot(0, 4 + position);
      if (position === 0) input.addTableUpdate(2, 0, 1);
      input.end();
      pass.upload(input);
      device.submit((commands) => pass.record(commands, input));
      expectSame(await readWords(device, pass.sampled, 2), [1, sequence.push(5, epoch)], `token of epoch ${epoch}`);
      const row = new Uint32Array(12);
      sequence.row(row);
      expectSame(await readWords(device, pass.routedExperts, 12), row, `row of epoch ${epoch}`);
    }
    pass.destroy();
  });

  test('ballast has as many links as last the time asked for, by the clock of the device', async () => {
    const nanosecondsPerLink = 50;
    let links = 0;
    const timed: Pick<Device, 'info' | 'createBuffer' | 'bind' | 'write' | 'time'> = {
      info: { ...device.info, hasTimestamps: true },
      createBuffer: (...given) => device.createBuffer(...given),
      bind: (...given) => device.bind(...given),
      write: (buffer, offset, data) => {
        links = data[0]!;
        device.write(buffer, offset, data);
      },
      time: (record) => {
        device.submit(record);
        return Promise.resolve(links * nanosecondsPerLink);
      },
    };
    const kernels = wgslKernels(model(), kernelShape(model(), engineConfig()), device.info);
    const ballast = await Ballast.create(timed as Device, kernels.ballast, 20);
    expect(ballast.iterations).toBe(20e6 / nanosecondsPerLink);
    expect(links).toBe(ballast.iterations);
    device.submit((commands) => ballast.record(commands));
    ballast.destroy();
  });

  test('destroy waits for pending reads, settles lost, and can be called twice', async () => {
    const other = await open();
    const slot = other.createBuffer('slot', 16, 'readback');
    const pending = other.read(slot, 16, (bytes) => bytes.byteLength);
    await Promise.all([other.destroy(), other.destroy()]);
    expect(await pending).toBe(16);
    expect(await other.lost).toBe(DESTROYED);
    await expect(other.read(slot, 16, () => 0)).rejects.toThrow('the device is gone');
  });
});

describe('webgpu only', () => {
  const open = DEVICES.find(({ name }) => name === 'webgpu')!.open;

  test('wrong WGSL rejects with the numbered source, and says so to everybody who asks for that kernel', async () => {
    const device = await open();
    const wrong: Kernel = { ...addOne, name: 'test/wrong', wgsl: () => 'fn main() {\n  let x: u32 = 1.5;\n}' };
    const buffer = device.createBuffer('b', 16, 'storage');
    await expect(device.bind(wrong, [buffer])).rejects.toThrow(
      /test\/wrong does not compile:[^]*2 \|   let x: u32 = 1\.5;/,
    );
    await expect(device.bind(wrong, [buffer])).rejects.toThrow('does not compile');
    await expect(device.bind(addOne, [buffer])).resolves.toBeDefined();
    await device.destroy();
  });

  test('an error that nobody asked about ends the device', async () => {
    const device = await open();
    const storage = device.createBuffer('storage', 16, 'storage');
    const readback = device.createBuffer('readback', 16, 'readback');
    device.submit((commands) => commands.copy(storage, 0, readback, 12, 16));
    const reason = await device.lost;
    expect(reason).toMatch(/copy|range|size/i);
    expect(() => device.submit(() => undefined)).toThrow('the device is gone');
    await expect(device.read(readback, 16, () => 0)).rejects.toThrow('the device is gone');
    await device.destroy();
  });

  test('the same engine on both devices: the references are the kernels', async () => {
    for (const { open: openOne } of DEVICES) {
      const device = await openOne();
      const engine = await ToyEngine.create(device, model(), engineConfig(), wgslKernels, 4);
      await engine.run(20);
      expect(engine.rows).toBeGreaterThan(50);
      await device.destroy();
    }
  });

  test('all requests of a large random step: 2,048 tokens of one prompt, then 256 requests that decode', async () => {
    const device = await open();
    const config = engineConfig({ maxNumBatchedTokens: 2048, maxNumSeqs: 256, numBlocks: 1024, maxModelLen: 2304 });
    const shape = modelPreset('tiny');
    const pass = await ForwardPass.create(device, { model: shape, engine: config, ballastMs: 0, kernels: wgslKernels });
    const input = new StepInput(pass.shape);
    const random = randomNumbers(6);
    const tokens = randomWords(random, 2304).map((word) => word % shape.vocabSize);
    const sequence = new Oracle(new Router(shape));
    input.begin(2048, 1, 576);
    input.setTokens(input.addRequest(0, 0, 2048, 0, true), tokens.subarray(0, 2048));
    for (let i = 0; i < 2048; i++) input.setSlot(i, 4 + i);
    for (let i = 0; i < 576; i++) input.addTableUpdate(0, i, 1 + i);
    input.end();
    pass.upload(input);
    device.submit((commands) => pass.record(commands, input));
    const rows = await readWords(device, pass.routedExperts, 2048 * 4);
    const expected = new Uint32Array(2048 * 4);
    for (let i = 0; i < 2048; i++) {
      sequence.push(tokens[i]!);
      sequence.row(expected, 4 * i);
    }
    expectSame(rows, expected, 'rows of a long prompt');

    input.begin(256, 256, 256 * 511);
    for (let i = 0; i < 256; i++) {
      input.setToken(input.addRequest(i, 2040, 1, 0, true), tokens[2040]!);
      input.setSlot(i, 4 + 2040);
    }
    for (let i = 0; i < 256; i++) for (let b = 0; b < 511; b++) input.addTableUpdate(i, b, 1 + b);
    input.end();
    pass.upload(input);
    device.submit((commands) => pass.record(commands, input));
    const decoded = await readWords(device, pass.routedExperts, 256 * 4);
    for (let i = 0; i < 256; i++) {
      expectSame(decoded.subarray(4 * i, 4 * i + 4), expected.subarray(2040 * 4, 2041 * 4), `row of request ${i}`);
    }
    await device.destroy();
  });
});

describe('ways to route', () => {
  test.each(DEVICES)('gate and router, in chunks, and all in one kernel are one function: $name', async ({ open }) => {
    const device = await open();
    const shape = model({ numLayers: 2, numExperts: 60, topK: 6 });
    const small = { ...device.info, maxStorageBufferBytes: 4 };
    for (const engineRouter of engineRouters(shape, device.info)) {
      const kernels = (m: typeof shape): ReturnType<typeof wgslKernels> =>
        wgslKernelsWith(m, kernelShape(m, engineConfig()), small, engineRouter);
      const engine = await ToyEngine.create(device, shape, engineConfig(), kernels, 5);
      await engine.run(20);
      expect(engine.rows, engineRouterName(engineRouter)).toBeGreaterThan(50);
    }
    await device.destroy();
  });
});
