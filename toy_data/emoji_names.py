"""The concepts of the emoji data set: code points, which are names of files in the packages, and English names.

Left out: flags, keycaps, letters, signs, clock faces, hands and people, and all but a few of what looks alike.
"""

# The best looking and most distinct ones at 96 pixels: those of the bundled model.
_BEST: dict[str, str] = {
    "animals": """
    1f435 monkey, 1f98d gorilla, 1f9a7 orangutan, 1f436 dog, 1f429 poodle, 1f43a wolf, 1f98a fox, 1f99d raccoon,
    1f431 cat, 1f981 lion, 1f42f tiger, 1f406 leopard, 1f434 horse, 1f984 unicorn, 1f993 zebra, 1f98c deer,
    1f42e cow, 1f437 pig, 1f411 sheep, 1f42a camel, 1f999 llama, 1f992 giraffe, 1f418 elephant, 1f9a3 mammoth,
    1f98f rhinoceros, 1f99b hippopotamus, 1f42d mouse, 1f439 hamster, 1f430 rabbit, 1f43f-fe0f chipmunk,
    1f9ab beaver, 1f994 hedgehog, 1f987 bat, 1f43b bear, 1f428 koala, 1f43c panda, 1f9a5 sloth, 1f9a6 otter,
    1f998 kangaroo, 1f413 rooster, 1f425 chick, 1f427 penguin, 1f985 eagle, 1f986 duck, 1f9a2 swan, 1f989 owl,
    1f9a9 flamingo, 1f99a peacock, 1f99c parrot, 1f438 frog, 1f40a crocodile, 1f422 turtle, 1f40d snake,
    1f409 dragon, 1f995 dinosaur, 1f996 tyrannosaurus, 1f433 whale, 1f42c dolphin, 1f9ad seal, 1f420 tropical fish,
    1f421 pufferfish, 1f988 shark, 1f419 octopus, 1f41a seashell, 1fabc jellyfish, 1f980 crab, 1f99e lobster,
    1f990 shrimp, 1f991 squid, 1f40c snail, 1f98b butterfly, 1f41b caterpillar, 1f41d bee, 1fab2 beetle,
    1f41e ladybug, 1f577-fe0f spider, 1f982 scorpion
    """,
    "plants": """
    1f490 bouquet, 1f338 cherry blossom, 1f339 rose, 1f33a hibiscus, 1f33b sunflower, 1f337 tulip, 1fab7 lotus,
    1f331 seedling, 1fab4 potted plant, 1f332 fir tree, 1f333 tree, 1f334 palm tree, 1f335 cactus,
    1f340 four-leaf clover, 1f341 maple leaf, 1f344 toadstool
    """,
    "food": """
    1f347 grapes, 1f349 watermelon, 1f34a tangerine, 1f34b lemon, 1f34c banana, 1f34d pineapple, 1f96d mango,
    1f34e apple, 1f351 peach, 1f352 cherries, 1f353 strawberry, 1fad0 blueberries, 1f95d kiwi, 1f345 tomato,
    1f965 coconut, 1f951 avocado, 1f346 eggplant, 1f955 carrot, 1f33d corn, 1f336-fe0f chili pepper,
    1fad1 bell pepper, 1f952 cucumber, 1f966 broccoli, 1f9c5 onion, 1f35e bread, 1f950 croissant, 1f968 pretzel,
    1f95e pancakes, 1f9c0 cheese, 1f357 chicken leg, 1f969 steak, 1f354 hamburger, 1f35f french fries, 1f355 pizza,
    1f32d hot dog, 1f96a sandwich, 1f32e taco, 1f373 fried egg, 1f957 salad, 1f37f popcorn, 1f35c noodle soup,
    1f363 sushi, 1f366 ice cream cone, 1f368 sundae, 1f369 doughnut, 1f36a cookie, 1f382 birthday cake,
    1f370 strawberry cake, 1f9c1 cupcake, 1f36b chocolate bar, 1f36c candy, 1f36d lollipop, 1f36f honey pot,
    2615 coffee cup, 1fad6 teapot, 1f377 wine glass, 1f378 cocktail, 1f379 tropical drink, 1f37a beer mug,
    1f9cb bubble tea
    """,
    "places": """
    1f30d globe, 1f3d4-fe0f mountain, 1f30b volcano, 1f3d5-fe0f campsite, 1f3dc-fe0f desert,
    1f3dd-fe0f desert island, 1f3e0 house, 1f3f0 castle, 26e9-fe0f torii gate, 26f2 fountain, 26fa tent,
    1f3a1 ferris wheel, 1f3a2 roller coaster, 1f3aa circus tent, 1f319 crescent moon, 2600-fe0f sun,
    1fa90 ringed planet, 2b50 star, 26c5 sun behind cloud, 1f329-fe0f thundercloud, 1f308 rainbow, 2614 umbrella,
    2744-fe0f snowflake, 26c4 snowman, 2604-fe0f comet, 1f525 fire, 1f4a7 water drop, 1f30a wave
    """,
    "transport": """
    1f682 steam train, 1f685 bullet train, 1f68d bus, 1f691 ambulance, 1f692 fire engine, 1f693 police car,
    1f695 taxi, 1f697 car, 1f69c tractor, 1f6f5 scooter, 1f6fa auto rickshaw, 1f6b2 bicycle, 1f6f9 skateboard,
    1f6fc roller skate, 1f6a6 traffic light, 2693 anchor, 1f6df life ring, 26f5 sailboat, 1f6f3-fe0f cruise ship,
    2708-fe0f airplane, 1fa82 parachute, 1f681 helicopter, 1f680 rocket, 1f6f8 flying saucer, 1f9f3 suitcase
    """,
    "activities": """
    1f383 jack-o-lantern, 1f384 Christmas tree, 1f388 balloon, 1f389 party popper, 1f380 ribbon, 1f381 gift,
    1f3c6 trophy, 1f3c5 medal, 26bd soccer ball, 1f3c0 basketball, 1f3be tennis racket, 1f94a boxing glove,
    1f3af target, 1fa80 yo-yo, 1fa81 kite, 1f52e crystal ball, 1fa84 magic wand, 1f3b2 dice, 1f9e9 puzzle piece,
    1f9f8 teddy bear, 1fa85 pinata, 1faa9 disco ball, 1fa86 nesting dolls, 1f3ad theater masks, 1f3a8 palette,
    1f9f6 yarn
    """,
    "objects": """
    1f576-fe0f sunglasses, 1f9e3 scarf, 1f9e6 socks, 1f457 dress, 1f45c handbag, 1f392 backpack,
    1f460 high-heeled shoe, 1f451 crown, 1f452 sun hat, 1f3a9 top hat, 1f393 graduation cap, 1f48d ring,
    1f48e diamond, 1f4e3 megaphone, 1f514 bell, 1f3a4 microphone, 1f3a7 headphones, 1f3b7 saxophone, 1f3ba trumpet,
    1fa97 accordion, 1f3b8 guitar, 1f3bb violin, 1f941 drum, 260e-fe0f telephone, 1f4fa television, 1f4f7 camera,
    1f56f-fe0f candle, 1f4a1 light bulb, 1f3ee paper lantern, 1f4da books, 1fa99 coin, 270f-fe0f pencil,
    1f58c-fe0f paintbrush, 2702-fe0f scissors, 1f512 padlock, 1f511 key, 1fa93 axe, 2694-fe0f crossed swords,
    1f4a3 bomb, 1f6e1-fe0f shield, 2699-fe0f gear, 1f9f2 magnet, 1f52c microscope, 1fa91 chair, 1f9fa basket,
    1faa3 bucket
    """,
    "faces": """
    1f603 smiling face, 1f602 laughing face, 1f60d face with heart eyes, 1f60e face with sunglasses,
    1f913 nerd face, 1f973 partying face, 1f920 cowboy face, 1f62d crying face, 1f621 angry face, 1f976 cold face,
    1f480 skull, 1f921 clown, 1f47b ghost, 1f47d alien, 1f916 robot, 2764-fe0f heart
    """,
}

# The rest.
_MORE: dict[str, str] = {
    "animals": """
    1f9ac bison, 1f417 boar, 1f40f ram, 1f410 goat, 1f9a8 skunk, 1f9a1 badger, 1face moose, 1f983 turkey,
    1f414 chicken, 1f423 hatching chick, 1f9a4 dodo, 1fabf goose, 1f54a-fe0f dove, 1f98e lizard,
    1f412 sitting monkey, 1f415 standing dog, 1f408 standing cat, 1f408-200d-2b1b black cat, 1facf donkey,
    1f402 ox, 1f403 water buffalo, 1f401 white mouse, 1f407 sitting rabbit, 1f43b-200d-2744-fe0f polar bear,
    1f426 bird, 1fab6 feather, 1f426-200d-2b1b blackbird, 1f432 dragon head, 1f40b blue whale, 1f41f fish,
    1fab8 coral, 1f9aa oyster, 1f41c ant, 1f997 cricket
    """,
    "plants": """
    1fabb hyacinth, 1f4ae white flower, 1f33c yellow flower, 1f33f herb, 1f342 autumn leaves, 1faba nest with eggs
    """,
    "food": """
    1f348 melon, 1f350 pear, 1f9c4 garlic, 1f95c peanuts, 1f956 baguette, 1f96f bagel, 1f9c7 waffle, 1f953 bacon,
    1f32f burrito, 1f359 rice ball, 1f35d spaghetti, 1f364 fried shrimp, 1f361 dango, 1f95f dumpling,
    1f367 shaved ice, 1f967 pie, 1f36e caramel pudding, 1f95b glass of milk, 1f375 cup of tea, 1f964 soda cup,
    1fad2 olive, 1f954 potato, 1f96c lettuce, 1f330 chestnut, 1fada ginger, 1fadb pea pod, 1f356 meat on bone,
    1f9c6 falafel, 1f95a egg, 1f958 paella, 1f372 stew, 1f9c8 butter, 1f96b tin can, 1f371 bento box,
    1f35a bowl of rice, 1f35b curry, 1f360 sweet potato, 1f365 fish cake, 1f96e moon cake, 1f960 fortune cookie,
    1f961 takeout box, 1f376 sake, 1f37e champagne bottle, 1f943 whiskey glass, 1f9ca ice cubes, 1f962 chopsticks,
    1f37d-fe0f dinner plate, 1f374 fork and knife, 1f944 spoon, 1f52a kitchen knife, 1fad9 jar, 1f3fa amphora
    """,
    "places": """
    1f3d6-fe0f beach, 1f3e1 house with garden, 26ea church, 2601-fe0f cloud, 1f327-fe0f rain cloud,
    1f32a-fe0f tornado, 26f1-fe0f parasol, 1f9ed compass, 26f0-fe0f rocky mountain, 1f5fb Mount Fuji,
    1f3db-fe0f classical building, 1faa8 rock, 1fab5 logs, 1f3ed factory, 1f3ef Japanese castle, 1f5fc Tokyo Tower,
    1f5fd Statue of Liberty, 1f54c mosque, 1f303 starry night, 1f3d9-fe0f city, 1f305 sunrise at sea,
    1f3a0 carousel horse, 1f31f glowing star, 1f320 shooting star, 1f30c Milky Way,
    1f326-fe0f sun behind rain cloud, 1f32c-fe0f wind face, 26a1 lightning bolt
    """,
    "transport": """
    1f68a tram, 1f6fb pickup truck, 1f3ce-fe0f racing car, 1f3cd-fe0f motorcycle, 1f6f6 canoe, 1f6a4 speedboat,
    1f6f0-fe0f satellite, 1f687 metro, 1f69d monorail, 1f699 off-road car, 1f69a delivery truck, 1f69b truck,
    1f6f4 kick scooter, 1f6a8 siren, 26f4-fe0f ferry, 1f6e9-fe0f small airplane, 1f6ce-fe0f bellhop bell,
    231b hourglass
    """,
    "activities": """
    1f390 wind chime, 1f3d0 volleyball, 1f3c8 american football, 1f3b3 bowling, 1f3f8 badminton, 1f93f diving mask,
    1f6f7 sled, 1f386 fireworks, 1f387 sparkler, 1f9e8 firecracker, 1f38d pine decoration, 1f38e Japanese dolls,
    1f38f carp streamer, 1f9e7 red envelope, 1f397-fe0f awareness ribbon, 1f396-fe0f military medal, 26be baseball,
    1f94f flying disc, 1f3cf cricket bat, 1f3d1 hockey stick, 1f3d2 ice hockey, 1f3d3 table tennis,
    1f94b judo uniform, 1f3a3 fishing rod, 1f3bf skis, 1f94c curling stone, 1f52b water pistol,
    1f3b1 billiard ball, 1f579-fe0f joystick, 265f-fe0f chess pawn, 1f5bc-fe0f framed picture,
    1f9f5 spool of thread, 1faa2 knot
    """,
    "objects": """
    1f454 necktie, 1f455 t-shirt, 1f456 jeans, 1f9e4 gloves, 1f45f sneaker, 1f484 lipstick, 1f4fb radio,
    1fa87 maracas, 1f4bb laptop, 1f4dc scroll, 1f4b0 money bag, 2709-fe0f envelope, 1f528 hammer,
    1f3f9 bow and arrow, 1f9f0 toolbox, 1f52d telescope, 1f6aa door, 1f6cf-fe0f bed, 1f6cb-fe0f couch,
    1f6c1 bathtub, 1f9f9 broom, 1f9fc soap, 1f453 glasses, 1f97d goggles, 1f9e5 coat, 1f458 kimono, 1f97b sari,
    1fa71 swimsuit, 1faad hand fan, 1f6cd-fe0f shopping bags, 1fa74 flip-flop, 1f97e hiking boot,
    1fa70 ballet shoes, 1f462 boot, 1f9e2 cap, 26d1-fe0f rescue helmet, 1f50a loudspeaker, 1f4ef post horn,
    1f399-fe0f studio microphone, 1f3b9 piano keys, 1fa95 banjo, 1fa98 conga drum, 1fa88 flute, 1f4f1 mobile phone,
    1f50c electric plug, 1f5a5-fe0f desktop computer, 1f5a8-fe0f printer, 1f5b1-fe0f computer mouse,
    1f4be floppy disk, 1f4bf compact disc, 1f9ee abacus, 1f3a5 movie camera, 1f4fd-fe0f film projector,
    1f3ac clapper board, 1f50d magnifying glass, 1f526 flashlight, 1fa94 oil lamp, 1f4d6 open book, 1f4e6 package,
    1f4eb mailbox, 1f58b-fe0f fountain pen, 1f58d-fe0f crayon, 1f4bc briefcase, 1f4cc pushpin, 1f4cf ruler,
    1f5d1-fe0f wastebasket, 1f5dd-fe0f old key, 26cf-fe0f pickaxe, 1f5e1-fe0f dagger, 1fa83 boomerang, 1fa9a saw,
    1f527 wrench, 1fa9b screwdriver, 1f529 nut and bolt, 2696-fe0f balance scale, 1f517 chain link, 1fa9c ladder,
    2697-fe0f alembic, 1f9ea test tube, 1f9ec DNA, 1f4e1 satellite antenna, 1f489 syringe, 1f48a pill,
    1fa7a stethoscope, 1fa9e mirror, 1fa9f window, 1f6bd toilet, 1faa0 plunger, 1faa4 mouse trap,
    1f9f4 lotion bottle, 1f9fb toilet paper, 1faa5 toothbrush, 1f9fd sponge, 1f9ef fire extinguisher,
    1f6d2 shopping cart, 1faa6 tombstone, 1f5ff moai
    """,
    "faces": """
    1f609 winking face, 1f914 thinking face, 1f634 sleeping face, 1f47a goblin, 1f643 upside-down face,
    1fae0 melting face, 1f607 smiling face with halo, 1f970 smiling face with hearts, 1f929 starry-eyed face,
    1f92a zany face, 1f911 money face, 1f917 hugging face, 1f636-200d-1f32b-fe0f face in clouds,
    1f637 face with medical mask, 1f975 hot face, 1f92f exploding head, 1f978 disguised face, 1f97a pleading face,
    1f631 face screaming in fear, 1f608 smiling face with horns, 1f479 ogre, 1f47e space invader,
    1f63a grinning cat, 1f648 see-no-evil monkey, 1f9e0 brain, 1f9b7 tooth, 1f9b4 bone, 1f441-fe0f eye,
    1f48c love letter, 1f494 broken heart, 2764-fe0f-200d-1f525 heart on fire
    """,
}

# With letters, digits or a direction that means something: never mirrored.
NOT_MIRRORED = frozenset(
    name.strip()
    for name in """
    money bag, party popper, disguised face, police car, taxi, ambulance, DNA, guitar, violin, banjo, piano keys,
    desktop computer, printer, floppy disk, compact disc, telephone, mobile phone, magnifying glass, ruler, pencil,
    fountain pen, crayon, paintbrush, billiard ball, dice, space invader, syringe, candle, target, mailbox, package,
    coin, medal, military medal, trophy, open book, books, abacus, radio, camera, movie camera
    """.split(",")
)


def concepts(*, best: bool = False) -> dict[str, str]:
    """Code points by name, alphabetically: of all concepts, or of the best half of them."""
    texts = [*_BEST.values()] if best else [*_BEST.values(), *_MORE.values()]
    entries = [entry.split(maxsplit=1) for text in texts for entry in text.split(",")]
    return dict(sorted((name.strip(), code) for code, name in entries))
