"""Plain English words of which synthetic prompts are made; those are used that a tokenizer has as one token."""

from __future__ import annotations

WORDS = tuple(
    """
able about above add afternoon again age air all aloud also always an and animal answer anyone anything are area arm
arrives as ask asked at autumn away baby back bad ball bank barrel base be because bed been before began begun
behind belonged beside best bird black blood blue board boat body bone book borrowed bottle bottom box boy branch
bread breakfast breaking bridge bright bring broke broken brother brought brown build burnt business but by call
calm came camp can capacitor capital captain car card care careful careless carried cars case cases cat cause cell
center century chance change changed cheap chief child children choice church circle city class clean clear climb
climbed climbing clock close cloth cloud coast coat cold color common company copy cord corn corner cost cotton
could counted counting countries country course cover cow cracked create crowd cry culture cupboard dance dark date
daughter day dead deal dear death decide deep desert design detail develop did difference dinner direct direction do
doctor dog dollar door dot double down draw dream dress drew drink drive dry during each ear early earth east easy
edge effect egg eight electric end enemy energy engine engineer enough equal evening event ever every example eye
face fact factory fall family famous far farm fast father fault faults fear feel fell felt fewer field figure fill
filled final finds fine finger fire first fish fit fitting flea floor flower fly follow food foot for force foreign
forest form forward found four free fresh friend from front fruit full game garden gas gave gear general gentle get
girl given glass go gold good grandmother grass gray great green ground group grow guard guess guide gun had hair
half hangs happy harbour hard harm has hat have he head health heart heat heavy height her him himself his history
hold holds hole home honour hope horse hot hotel hour house how huge human ice idea image important in industry
inside instrument instruments interest iron is island it its itself joint jump keep keeper kept kettle key king
kitchen knee know knowing known lady lake lamp land landing landlord language lantern large larger last laugh law
lay lead leaf learn leaves left leg less lesson let letter level library lid lie lies life lift light lighthouse
like line lion list listen listened lit locked long losing lost lot loud love low lunch machine made magic main
major man map march mark market mass match material matter meal meaning measure measured meat medical member memory
metal method middle might mile milk million mind minds minute minutes model modern money month months moon morning
most mother motion mountain mouth move music must name names nation nature near neck needle neighbor never new news
next night nights nine no nobody north nose not note nothing notice now number object ocean of off office oil old on
once one only open opened opposite orange order organ other out over own owner owners page pages pain paint pair
paper parent park part parts party past path pay peace pencil people perfect period person picture piece place plain
plan plant plate play plural poem point police poor popular position post pound power practice prepare present press
pretty price private problem process produce product proper protect public published pull pure push queen question
queue quick quiet race radio radios rain raised reach read ready reason rebuilt record red refused region rent
repair repaired report rest rice rich ride ring rise river road rock roll roof roofs room root rope rose round row
rule ruler run safe said salt same sand sat saw scale school science score sea search season seat second secret
section see sell send sense sent sentence separate service set settle seven seventh sewing shade shape share sharp
she shed sheet shelf ship ships shirt shirts shoe shop shore short shoulder shoulders shout side sight sign silence
silver similar simple simply since sing single sister sit six size skill skin sky sleep sleeping slip slow slowly
small smell smelled smile snow so social soft soil sold soldering soldier solid somebody something son song soon
sound south space speak special speech speed spell spend spirit spot spread spring square squared stage stair stairs
star state station steam steel step steps stick still stone stood stopped storm story strange stream street strength
stretch string strong student study subject success sudden sugar sum summer sun sunk supply sure surface surprise
surprised sweet swim symbol system table tail takes talk tall teach team tell ten term test text than thanks that
the their them there they thick thin thing things third thirty those thought thousand three throw tick tide tides
tie time tin tiny to toaster toasters today together told tomorrow tone too took tool top total touch toward town
trade train travel treats tree triangle trip trouble truck true try tube turn turned twenty twice two type uncle
under understood unit university until upper use used usual valley value various verb very view village visit voice
vote wagon walk walks wall walls wanted war warm was wash watch watches water wave way weak wear weather week weight
went were west wet what wheel when where whether which while white who whoever whole why wide width wife wild will
wind window wing winter wire wish with woman wonder wood word world written wrong wrote yard year years yellow yet
young
""".split()  # noqa: SIM905 (as a list it would take a line for each)
)
