/**
 * A stream as the text that it holds.
 *
 * @module
 */
/**
 * Reads a stream of text or of UTF-8 bytes to its end.
 *
 * @param stream The stream.
 * @returns Its text.
 */
export async function toText(
  stream: ReadableStream<string> | ReadableStream<Uint8Array>,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
