/** The virtual device has the hazards of a real one: without them a race could not show. */

import { expect, test } from 'vitest';
import type { Kernel } from '../../src/contract/device.ts';
import { EventHeap, Phase } from '../../src/sim/virtual/event-heap.ts';
import { EventLog } from '../../src/sim/event-log.ts';
import { VirtualDevice } from '../../src/sim/virtual/virtual-device.ts';

const addOne: Kernel = {
  name: 'addOne',
  wgsl: () => '',
  bindings: ['read-write'],
  requires: [],
  reference: (b) => void (b[0]![0]! += 1),
};

test('nothing runs when it is called', () => {
  const device = new VirtualDevice();
  const buffer = device.createBuffer('a', 4, 'storage');
  const bound = device.bindNow(addOne, [buffer]);
  device.write(buffer, 0, Uint32Array.of(5));
  device.submit((commands) => commands.dispatch(bound, 1));
  expect(buffer.words[0]).toBe(0);
  device.executeNext();
  expect(buffer.words[0]).toBe(6);
});

test('a copy reads its source when it executes, and a write’s data is taken when it is called', () => {
  const device = new VirtualDevice();
  const source = device.createBuffer('source', 8, 'storage');
  const target = device.createBuffer('target', 8, 'readback');
  const data = Uint32Array.of(1, 2);
  device.submit((commands) => commands.copy(source, 0, target, 4, 4));
  device.write(source, 0, data);
  data[0] = 99;
  device.submit((commands) => commands.copy(source, 0, target, 0, 4));
  device.executeNext();
  expect([...target.words]).toEqual([0, 0]);
  device.executeNext();
  expect([...target.words]).toEqual([1, 0]);
});

test('a buffer that is mapped late shows what was copied there since', () => {
  const device = new VirtualDevice();
  const buffer = device.createBuffer('counter', 4, 'storage');
  const staging = device.createBuffer('staging', 4, 'readback');
  const bound = device.bindNow(addOne, [buffer]);
  for (let step = 0; step < 2; step += 1) {
    device.submit((commands) => {
      commands.dispatch(bound, 1);
      commands.copy(buffer, 0, staging, 0, 4);
    });
  }
  device.executeNext();
  device.executeNext();
  expect(device.view(staging, 4)[0]).toBe(2);
});

test('what is out of range, or was never submitted, is an error', () => {
  const device = new VirtualDevice();
  const buffer = device.createBuffer('a', 4, 'storage');
  expect(() => device.write(buffer, 4, Uint32Array.of(1))).toThrow(/has 4/);
  expect(() => device.copy(buffer, 0, buffer, 0, 4)).toThrow(/outside of a submission/);
  expect(() => device.executeNext()).toThrow(/more than was submitted/);
});

test('events run by time, then phase, then in the order in which they were planned', () => {
  const heap = new EventHeap();
  const seen: string[] = [];
  const plan = (time: number, phase: Phase, name: string): void => heap.plan(time, phase, () => seen.push(name));
  plan(5, Phase.update, 'e');
  plan(5, Phase.client, 'c1');
  plan(1, Phase.begin, 'a');
  plan(5, Phase.client, 'c2');
  plan(5, Phase.device, 'b');
  heap.plan(9, Phase.device, () => plan(3, Phase.device, `late at ${heap.now}`));
  while (heap.runNext());
  expect(seen).toEqual(['a', 'b', 'c1', 'c2', 'e', 'late at 9']);
});

function hashOf(words: readonly number[]): string {
  const log = new EventLog(false);
  for (const word of words) log.word(word);
  return log.hash;
}

test('two logs that differ in one word, or in the order of two, have different hashes', () => {
  const hashes = [[], [0], [1], [0, 1], [1, 0], [0, 0], [0, 1, 2], [0, 2, 1]].map(hashOf);
  expect(new Set(hashes).size).toBe(hashes.length);
});
