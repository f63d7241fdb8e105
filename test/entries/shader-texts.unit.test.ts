// The shaders of a built package are those of the source, every one.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { shaderTexts } from '../../bin/shader-texts.mjs';
import type { ReadShader } from '../../src/contract/device.ts';
import { readShader } from '../../src/kernels/device/shader-files.ts';

const SOURCE = join(import.meta.dirname, '..', '..', 'src');

test('the module that the build writes has the text of each shader file', async () => {
  const url = `data:text/javascript,${encodeURIComponent(shaderTexts(SOURCE))}`;
  const built = ((await import(/* @vite-ignore */ url)) as { readShader: ReadShader }).readShader;
  const files = readdirSync(join(SOURCE, 'kernels'), { recursive: true, encoding: 'utf8' });
  const names = files.filter((file) => file.endsWith('.wgsl')).map((file) => file.replace(/\.wgsl$/, ''));
  expect(names.length).toBeGreaterThan(50);
  for (const name of names) expect([name, built(name)]).toEqual([name, readShader(name)]);
  expect(() => built('no-such-shader')).toThrow('no-such-shader');
});
