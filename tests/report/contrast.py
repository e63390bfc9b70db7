"""How well texts of a page stand out from their ground, measured in the browser as WCAG 2.2 defines it (1.4.3)."""

WORST_CONTRAST = """
() => {
  // "rgb(1, 2, 3)", "rgba(...)" or "color(srgb 0.1 0.2 0.3 / 0.5)" -> red, green, blue in 0..1 and alpha.
  const parsed = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    const most = text.startsWith('color(') ? 1 : 255;
    return [r / most, g / most, b / most, a];
  };
  const over = ([r, g, b, a], ground) => [r, g, b].map((value, k) => a * value + (1 - a) * ground[k]);
  const groundOf = (element) => {
    const layers = [];
    for (let at = element; at !== null; at = at.parentElement) {
      layers.push(parsed(getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((ground, layer) => over(layer, ground), [1, 1, 1]);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  let worst = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const isText = walker.currentNode.data.trim() !== '' && !element.closest('script, style, template, .unseen');
    if (!isText || !element.checkVisibility({ visibilityProperty: true })) continue;
    const ground = groundOf(element);
    for (const pseudo of [null, '::after', '::before']) {
      const style = getComputedStyle(element, pseudo);
      if (pseudo !== null && style.content === 'none') continue;
      const found = ratio(over(parsed(style.color), ground), ground);
      const what = `${found.toFixed(2)} ${element.className} ${pseudo ?? ''}: ${walker.currentNode.data.slice(0, 60)}`;
      if (found < worst[0]) worst = [found, what];
    }
  }
  return worst;
}
"""
