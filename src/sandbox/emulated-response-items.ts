import type { FunctionTool } from './emulated-request.ts';
import { anything, fields, flag, isGiven, isObject, listOf, object, oneOf, text, type Check } from './emulated-shape.ts';

// What goes into /v1/responses: items of the conversation, and tools.

export type InputItem = Record<string, unknown>;

const checkPart: Check = (value, path) => {
  fields({ type: oneOf('input_text', 'output_text', 'input_image', 'input_file', 'text', 'refusal') })(value, path);
  const type = (value as InputItem)['type'];
  if (type === 'input_text' || type === 'output_text' || type === 'text') fields({ text })(value, path);
  if (type === 'input_image') fields({}, { image_url: text, detail: text, file_id: text })(value, path);
};

const checkMessage = fields({
  role: oneOf('user', 'assistant', 'system', 'developer'),
  content: (value, path) => (Array.isArray(value) ? listOf(checkPart)(value, path) : text(value, path)),
});

const CHECKS_BY_TYPE: ReadonlyMap<unknown, Check> = new Map(Object.entries({
  message: checkMessage,
  function_call: fields({ call_id: text, name: text, arguments: text }),
  function_call_output: fields({ call_id: text, output: anything }),
  reasoning: fields({}, { summary: listOf(object), encrypted_content: text }),
}));

const checkItem: Check = (value, path) => {
  fields({}, { type: text })(value, path);
  CHECKS_BY_TYPE.get((value as InputItem)['type'] ?? 'message')?.(value, path); // an earlier output item of any type may come back
};

export const checkInput: Check = (value, path) => (Array.isArray(value) ? listOf(checkItem)(value, path) : text(value, path));

const TOOL_TYPES = ['function', 'web_search', 'x_search', 'code_interpreter', 'file_search', 'image_generation', 'mcp', 'shell', 'tool_search'];

export const checkTool: Check = (value, path) => {
  fields({ type: oneOf(...TOOL_TYPES, 'live_search') })(value, path);
  if ((value as InputItem)['type'] === 'function') fields({ name: text }, { description: text, parameters: object, strict: flag, defer_loading: flag })(value, path);
};

export const checkTextOptions = fields({}, {
  format: (value, path) => {
    fields({ type: oneOf('text', 'json_object', 'json_schema') })(value, path);
    if ((value as InputItem)['type'] === 'json_schema') fields({ schema: object }, { name: text, strict: flag, description: text })(value, path);
  },
});

export const checkToolChoice: Check = (value, path) =>
  isObject(value) ? fields({ type: text }, { name: text })(value, path) : oneOf('none', 'auto', 'required')(value, path);

export const checkReasoning = fields({}, { effort: text, summary: oneOf('auto', 'concise', 'detailed') });

/** As stored and listed: everything has an id, and a text is a message of the user. */
export function inputItems(input: unknown, responseId: string): InputItem[] {
  const items: readonly InputItem[] = typeof input === 'string' ? [{ role: 'user', content: [{ type: 'input_text', text: input }] }] : (input as InputItem[]);
  return items.map((item, index) => ({ ...item, id: item['id'] ?? `item_${responseId}_${index}`, type: item['type'] ?? 'message' }));
}

/** An item as the message that it would be in a chat, for counting and caching. */
export function asMessage(item: InputItem): Record<string, unknown> {
  switch (item['type'] ?? 'message') {
    case 'message':
      return { role: item['role'], content: item['content'] };
    case 'function_call':
      return { role: 'assistant', content: `${String(item['name'])}${String(item['arguments'])}` };
    case 'function_call_output':
      return { role: 'tool', content: typeof item['output'] === 'string' ? item['output'] : JSON.stringify(item['output']) };
    case 'reasoning':
      return { role: 'assistant', content: item['summary'] };
    default:
      return { role: String(item['type']), content: JSON.stringify(item) };
  }
}

/** The function that the answer must call; none where the choice leaves it to the model. */
export function chosenFunction(tools: readonly Record<string, unknown>[], choice: unknown): FunctionTool | undefined {
  if (!isGiven(choice) || choice === 'auto' || choice === 'none') return undefined;
  const functions = tools.filter(({ type }) => type === 'function');
  const called = isObject(choice) ? functions.find(({ name }) => name === choice['name']) : functions[0];
  return called && { name: String(called['name']), parameters: called['parameters'] };
}

/** Opaque to callers: tells which model may read it. */
export function encryptReasoning(modelId: string, responseId: string): string {
  return Buffer.from(JSON.stringify({ modelId, responseId })).toString('base64');
}

/** The model whose encrypted reasoning this is; undefined for what no model has written. */
export function modelOfEncryptedReasoning(encrypted: string): string | undefined {
  try {
    const { modelId } = JSON.parse(Buffer.from(encrypted, 'base64').toString()) as { modelId?: string };
    return modelId;
  } catch {
    return undefined;
  }
}
