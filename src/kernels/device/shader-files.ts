/** Reads shaders from the `.wgsl` files beside the kernels. */

import { readFileSync } from 'node:fs';
import type { ReadShader } from '../../contract/device.ts';

const texts = new Map<string, string>();

export const readShader: ReadShader = (file) => {
  let text = texts.get(file);
  if (text === undefined) {
    text = readFileSync(new URL(`../${file}.wgsl`, import.meta.url), 'utf8');
    texts.set(file, text);
  }
  return text;
};
