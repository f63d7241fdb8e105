// The module that a built package has in place of src/kernels/device/shader-files.ts: the same function over the texts
// of all shaders, so that it needs no file system.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** `root`: the folder src. */
export function shaderTexts(root) {
  const kernels = join(root, 'kernels');
  const files = readdirSync(kernels, { recursive: true }).filter((file) => file.endsWith('.wgsl'));
  const texts = files
    .sort()
    .map((file) => [file.replaceAll('\\', '/').replace(/\.wgsl$/, ''), readFileSync(join(kernels, file), 'utf8')]);
  return `/** Made by \`npm run build\` from the .wgsl files. */
const texts = new Map(${JSON.stringify(texts, null, 1)});

export const readShader = (file) => {
  const text = texts.get(file);
  if (text === undefined) throw new Error(\`there is no shader \${file}\`);
  return text;
};
`;
}
