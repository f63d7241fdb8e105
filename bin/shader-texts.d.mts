/** The module that a built package has in place of `kernels/device/shader-files.ts`. `root`: the folder src. */
export function shaderTexts(root: string): string;
